"""The packing benchmark times both cases on the same samples."""

import json
import sys
from collections.abc import Callable, Mapping

import pytest

from benchmarks import pack


def test_the_benchmark_ends_in_its_figures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = {"decode": 2.0, "pack": 3.0}

    def measure(cases: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
        for run in cases.values():
            run()
        return {name: [fixed[name]] * rounds for name in cases}

    monkeypatch.setattr(pack, "measure", measure)
    monkeypatch.setattr(sys, "argv", ["pack", "--size", "64", "--samples", "2", "--copies", "2", "--rounds", "1"])
    pack.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["samples"] == 4
    assert figures["pack_over_decode"] == 1.5
    assert 20 < figures["peak_memory_mb"] < 1000
