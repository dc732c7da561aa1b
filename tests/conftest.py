"""The order of the tests, and a finished run that tests of several packages share."""

import os
import shutil
from pathlib import Path

import pytest

# There is a worker per core already; with a thread per core in each of them, threads mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.fixtures.competition import blend_ids, prepare, run_the_rest, write_truth


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests that start the pipeline spend a third of their time waiting.

    Workers get whole files (``--dist loadfile``), so that a file's finished run is made once. Groups across files
    (``loadgroup``) would do as well, but pytest-xdist 3.8 ignores them with pytest 9.2, without a word.
    """
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those of minutes first, so that no worker is left with one of them when the others are done."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def _finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two sources from folds to submit; the truth of the test set is known, in reverse order."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        targets = prepare()
        write_truth(blend_ids()[::-1], targets[::-1])
        run_the_rest()
    return root


@pytest.fixture
def finished_run(_finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that run for one test, as the working folder."""
    copy = shutil.copytree(_finished_run, tmp_path / "run")
    monkeypatch.chdir(copy)
    return copy
