"""A stage that DVC runs fails if its parameters, files or code change before it ends."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.core import stage_inputs
from pipeline.core.errors import InputError

DVC = """
stages:
  train:
    cmd: python -m pipeline.stages.train --model ${item.model} --fold ${item.fold}
    params: ["models.${item.model}", tta]
    deps: [code-digests/train.txt, folds.csv, packed, weights, "data/${data.sources[0]}"]
"""
PARAMS = """
data: {sources: [mini]}
models: {a: {epochs: 3}, b: {epochs: 3}}
tta: {views: [identity]}
machine: {workers: 1}
"""


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which DVC has started the job of model a and fold 0."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "train@a-0")
    monkeypatch.setattr(sys, "argv", ["train", "--model", "a", "--fold", "0"])
    for name in ("packed", "weights", "data/mini", "code-digests"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("folds.csv", "packed/x.npy", "weights/w.safetensors", "data/mini/train.csv"):
        (tmp_path / name).write_text("one")
    (tmp_path / "dvc.yaml").write_text(DVC)
    (tmp_path / "params.yaml").write_text(PARAMS)
    yield tmp_path
    stage_inputs._before.clear()


def changed(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new))

    return edit


def written(name: str) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("new text")

    return edit


def touched(root: Path) -> None:
    os.utime(root / "folds.csv", ns=(1, 1))


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (changed("params.yaml", "a: {epochs: 3}", "a: {epochs: 4}"), r"params\.yaml: models\.a"),
        (changed("params.yaml", "a: {epochs: 3}, ", ""), r"params\.yaml: models\.a"),
        (changed("params.yaml", "identity", "flip"), r"params\.yaml: tta"),
        (written("folds.csv"), r"folds\.csv"),
        (touched, r"folds\.csv"),
        (written("packed/x.npy"), r"packed/x\.npy"),
        (written("packed/more.npy"), r"packed/more\.npy"),
        (written("weights/w.safetensors"), r"weights/w\.safetensors"),
        (lambda root: (root / "weights/w.safetensors").unlink(), r"weights/w\.safetensors"),
        (written("data/mini/train.csv"), r"data/mini/train\.csv"),
    ],
)
def test_a_changed_input_is_named(stage: Path, edit: Callable[[Path], None], named: str) -> None:
    stage_inputs.remember()
    stage_inputs.check()
    edit(stage)
    with pytest.raises(InputError, match=rf"^{named}: changed while this stage ran, .*: run dvc repro again$"):
        stage_inputs.check()


@pytest.mark.parametrize(
    "edit",
    [
        changed("params.yaml", "b: {epochs: 3}", "b: {epochs: 4}"),  # another model
        changed("params.yaml", "workers: 1", "workers: 2"),
        changed("params.yaml", "tta:", "# a comment\ntta:"),
        written("weights/README.md"),
        written("weights/others.safetensors"),  # weights for a later run
        written("packed/.DS_Store"),
        written("results.csv"),
    ],
)
def test_what_the_stage_does_not_read_may_change(stage: Path, edit: Callable[[Path], None]) -> None:
    stage_inputs.remember()
    edit(stage)
    stage_inputs.check()


@pytest.mark.usefixtures("stage")
def test_a_program_that_dvc_has_not_started_checks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_STAGE")
    stage_inputs.remember()
    changed("params.yaml", "a: {epochs: 3}", "a: {epochs: 4}")(Path())
    stage_inputs.check()


def test_many_inputs_are_counted(stage: Path) -> None:
    stage_inputs.remember()
    for number in range(5):
        (stage / f"packed/{number}.npy").write_text("new")
    with pytest.raises(InputError, match=r"^packed/0\.npy, packed/1\.npy, packed/2\.npy, \.\.\.: changed"):
        stage_inputs.check()
