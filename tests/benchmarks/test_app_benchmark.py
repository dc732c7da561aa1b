"""The benchmark of the page gives the figures that the measurements name."""

from pathlib import Path

import pytest

from benchmarks.app import CHANGES, main
from tests.fixtures.served import write_served_run


def test_the_figures_are_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_served_run()
    found = main(uploads=2, samples=4)
    assert found["samples"] == 4
    assert 0 < found["median_s"] <= found["slowest_s"]
    assert found["cautioned_emptied"] == found["cautioned_darker"] == 1
    assert found["cpu_s"] > 0
    assert set(found) >= {f"cautioned_{name}" for name in CHANGES} | {"first_s", "start_s", "cautioned"}
