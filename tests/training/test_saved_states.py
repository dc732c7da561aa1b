"""Saved states: only those of the same parameters, data, code and library versions are resumed from."""

import importlib.metadata
from pathlib import Path

import pytest

from pipeline.training.saved_states import KEPT, PACKAGES, SavedStates, fingerprint


def test_states_of_another_run_are_neither_used_nor_deleted_until_a_run_ends(tmp_path: Path) -> None:
    one, other = SavedStates(tmp_path / "job", "one"), SavedStates(tmp_path / "job", "two")
    one.save(1, 0, {"epoch": 1})
    assert other.newest() is None
    for epoch in range(4):
        other.save(epoch, 0, {"epoch": epoch})
    assert one.newest() == {"epoch": 1}
    assert len(list(other.folder.iterdir())) == KEPT
    other.remove_job()
    assert one.newest() is other.newest() is None
    assert not other.job.exists()
    other.remove_job()  # nothing to delete is no error


def test_a_run_is_named_by_its_parameters_and_the_content_of_its_files(tmp_path: Path) -> None:
    file = tmp_path / "folds.csv"
    file.write_text("a")
    name = fingerprint("batch_size 8", [file])
    assert name == fingerprint("batch_size 8", [file])
    assert name != fingerprint("batch_size 9", [file])
    file.write_text("b")
    assert name != fingerprint("batch_size 8", [file])


@pytest.mark.parametrize("package", PACKAGES)
def test_a_run_is_named_by_the_versions_of_what_computes_it(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    name, version = fingerprint("", []), importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda asked: "0" if asked == package else version(asked))
    assert name != fingerprint("", [])
