"""A small finished run that the page serves."""

from pathlib import Path

import pytest

from pipeline.app.served_run import ServedRun, load_run
from pipeline.core import params
from tests.fixtures.served import write_served_run


@pytest.fixture(scope="session")
def served_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder, which tests do not change."""
    root = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_served_run()
    return root


@pytest.fixture(scope="session")
def served(served_folder: Path) -> ServedRun:
    """The run, loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(served_folder)
        return load_run(Path("models"), params.load())
