"""A stage that DVC runs fails if its parameters, files or code change before it ends."""

import os
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.core import code_digest, stage_inputs
from pipeline.core.errors import InputError

DVC = """
stages:
  train:
    cmd: python -m pipeline.stages.train --model ${item.model} --fold ${item.fold}
    params: ["models.${item.model}", tta]
    deps: [code-digests/train.txt, folds.csv, packed, weights, autoencoders, "data/${data.sources[0]}"]
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
    for name in ("packed", "weights", "autoencoders", "data/mini", "code-digests"):
        (tmp_path / name).mkdir(parents=True)
    files = ("folds.csv", "packed/x.npy", "weights/w.safetensors", "autoencoders/a.safetensors", "data/mini/train.csv")
    for name in files:
        (tmp_path / name).write_text("one")
    linked = tmp_path / "larger disk"
    linked.mkdir()
    (linked / "a_green.png").write_text("one")
    (tmp_path / "data/mini/linked").symlink_to(linked)
    (linked / "back").symlink_to(tmp_path / "data/mini")  # a circle of links ends
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


def moved_to_another_disk(root: Path) -> None:
    """A folder is moved and a link left in its place; the copy has times of its own."""
    (root / "elsewhere").mkdir()
    (root / "elsewhere/x.npy").write_text("one")
    (root / "packed/x.npy").unlink()
    (root / "packed").rmdir()
    (root / "packed").symlink_to(root / "elsewhere")


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
        (written("autoencoders/a.safetensors"), r"autoencoders/a\.safetensors"),
        (lambda root: (root / "weights/w.safetensors").unlink(), r"weights/w\.safetensors"),
        (written("data/mini/train.csv"), r"data/mini/train\.csv"),
        (written("data/mini/linked/a_green.png"), r"data/mini/linked/a_green\.png"),
        (moved_to_another_disk, r"packed/x\.npy"),
        (lambda root: (root / "folds.csv").unlink(), r"folds\.csv"),
        # Where an edit has not come to its end, or takes away what the stage was started for:
        (
            changed("params.yaml", "sources: [mini]", "sources: []"),
            r"data/mini/train\.csv, data/mini/linked/a_green\.png",
        ),
        (
            changed("params.yaml", "data: {sources: [mini]}", "data:"),
            r"data/mini/train\.csv, data/mini/linked/a_green\.png",
        ),
        (changed("params.yaml", "tta: {views: [identity]}", ""), r"params\.yaml: tta"),
        (changed("params.yaml", "tta: {views: [identity]}", "tta: [identity]"), r"params\.yaml: tta"),
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
        written("autoencoders/b.safetensors"),
        written("packed/.DS_Store"),
        written("packed/Thumbs.db"),
        written("packed/.partial/other.npy"),
        written("data/mini/@eaDir/train.csv"),
        written("data/mini/train.csv:Zone.Identifier"),
        changed("params.yaml", "a: {epochs: 3}", "a: {epochs: 3.0}"),
        changed("params.yaml", "tta: {views: [identity]}", "tta:\n  views:\n  - identity  # one"),
        changed("dvc.yaml", "cmd: python", "cmd: python3"),
        written("results.csv"),
    ],
)
def test_what_the_stage_does_not_read_may_change(stage: Path, edit: Callable[[Path], None]) -> None:
    stage_inputs.remember()
    edit(stage)
    stage_inputs.check()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (changed("params.yaml", "views: [identity]}", "views: [iden"), r"^params\.yaml is not valid YAML: "),
        (lambda root: (root / "params.yaml").unlink(), r"^params\.yaml is missing: "),
        (
            changed("dvc.yaml", "train:", "fit:"),
            r"^dvc\.yaml no longer has the stage train@a-0.*: run dvc repro again$",
        ),
        (changed("dvc.yaml", "stages:", "stages: []\nold:"), r"^dvc\.yaml no longer has the stage train@a-0"),
    ],
)
def test_a_file_that_cannot_be_read_at_the_end_is_one_message(
    stage: Path, edit: Callable[[Path], None], message: str
) -> None:
    stage_inputs.remember()
    edit(stage)
    with pytest.raises(InputError, match=message):
        stage_inputs.check()


def test_code_that_changes_while_a_stage_runs_is_named(stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = ModuleType("__main__")
    program.__spec__ = ModuleSpec("pipeline.stages.train", None)
    monkeypatch.setitem(sys.modules, "__main__", program)
    (stage / "code-digests/train.txt").write_text(code_digest.of_module("pipeline.stages.train"))
    stage_inputs.remember()
    stage_inputs.check()
    monkeypatch.setattr(code_digest, "of_module", lambda name: f"{name} of another branch\n")
    with pytest.raises(
        InputError, match=r"^code-digests/train\.txt is not of the present code.*: run dvc repro again$"
    ):
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
