"""The commit of the working folder; with changes, the test of ``python -m pipeline summary`` asks for it."""

from pathlib import Path

import pytest

from pipeline.core.revision import NOT_UNDER_GIT, code_revision


def test_a_folder_outside_git_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert code_revision() == NOT_UNDER_GIT == "not under git"
