"""An interrupted training survives what cannot change its result, and nothing else."""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML

from pipeline.core import code_digest, params, paths
from pipeline.core.errors import InputError
from pipeline.sources.packed_array import open_images
from pipeline.stages import complete_models, train
from pipeline.training import history
from tests.fixtures.models import CLASSICAL, TINY
from tests.fixtures.runs import write_run

ROOT = Path(__file__).parents[2]
MODEL = TINY.model_copy(update={"size": 32, "epochs": 3, "batch_size": 30})
LEARNED = MODEL.model_copy(update={"learning_rate": 1e-3})
JOB = paths.RESUME / "train/tiny-0"

Edit = Callable[[str], str]


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, from which digests of the code are taken."""
    monkeypatch.setattr(code_digest, "ROOT", tmp_path / "code")
    return shutil.copytree(ROOT / "pipeline", tmp_path / "code/pipeline", ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run up to the folds, with a network of three epochs that saves its state after every step."""
    root = tmp_path / "run"
    root.mkdir()
    monkeypatch.chdir(root)
    shutil.copy(ROOT / "params.yaml", root)
    configure(MODEL)
    write_run()
    monkeypatch.setattr(sys, "argv", ["train", "--model", "tiny", "--fold", "0"])
    return root


def configure(model: params.Model) -> None:
    settings = YAML(typ="safe").load(Path("params.yaml"))
    settings["models"] = {"tiny": model.model_dump(mode="json")}
    settings["machine"] |= {"workers": 0, "save_minutes": 0}
    YAML(typ="safe").dump(settings, Path("params.yaml"))
    complete_models.main()


def interrupt(monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    """Train and be killed after so many epochs."""

    def write_log(path: Path, rows: list[Any]) -> None:
        if len(rows) == epochs:
            raise KeyboardInterrupt(path)

    with monkeypatch.context() as patch:
        patch.setattr(history, "write_log", write_log)
        with pytest.raises(KeyboardInterrupt):
            train.main()


def resumed(capsys: pytest.CaptureFixture[str]) -> int | None:
    """Train to the end; the epochs that an earlier run had completed, or None if there was none to resume."""
    capsys.readouterr()
    train.main()
    found = re.search(r"resuming after (\d+) of 3 epochs", capsys.readouterr().err)
    return int(found[1]) if found else None


def change(file: Path, pattern: str, new: str) -> None:
    text = file.read_text()
    changed = re.sub(pattern, new, text, count=1)
    assert changed != text, pattern
    file.write_text(changed)


def made() -> tuple[bytes, list[str]]:
    """The weights, and the learning curve without what was measured."""
    rows = paths.history("tiny", 0).read_text().splitlines()
    return paths.model("tiny", 0).read_bytes(), [row.rpartition(",")[0] for row in rows]


@pytest.mark.usefixtures("folder")
def test_an_interrupted_training_survives_changes_of_code_that_it_does_not_import(
    code: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert resumed(capsys) is None
    uninterrupted = made()
    paths.model("tiny", 0).unlink()
    shutil.rmtree(JOB)
    interrupt(monkeypatch, epochs=2)
    for file in ("reporting/charts.py", "evaluation/thresholds.py", "simulation/scene.py", "stages/report.py"):
        (code / file).write_text((code / file).read_text() + "\nADDED = 1\n")
    (code / "core/paths.py").write_text("")
    change(code / "training/loop.py", r'^"""', '"""In other words: ')
    change(code / "models/attention.py", "\n\n\n", "\n\n\n# A remark.\n")
    assert resumed(capsys) == 1
    assert made() == uninterrupted
    assert resumed(capsys) == 3, "a run that DVC could not record is made again from its last state"
    assert made() == uninterrupted


@pytest.mark.usefixtures("folder")
def test_the_state_of_other_code_or_parameters_is_not_used_and_waits_until_a_run_has_ended(
    code: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt(monkeypatch, epochs=2)
    before = {path: path.read_bytes() for path in JOB.rglob("*.pt")}
    assert before
    imported = code / "models/attention.py"
    original = imported.read_text()
    imported.write_text(original + "\nADDED = 1\n")
    interrupt(monkeypatch, epochs=1)
    configure(LEARNED)
    interrupt(monkeypatch, epochs=1)
    assert len(list(JOB.iterdir())) == 3, "a folder for each: the first, the other code, the other parameters"
    assert before.items() <= {path: path.read_bytes() for path in JOB.rglob("*.pt")}.items()
    imported.write_text(original)
    configure(MODEL)
    assert resumed(capsys) == 1, "who goes back resumes"


@pytest.mark.usefixtures("folder")
def test_a_training_is_told_from_others_by_all_that_its_result_depends_on(code: Path) -> None:
    images = {"sample": open_images("sample")}

    def of_now(model: params.Model = MODEL, fold: int = 0, draws: dict[str, float] | None = None) -> str:
        return train.run_fingerprint(model, fold, images, draws or {})

    found = [of_now(), of_now(LEARNED), of_now(CLASSICAL), of_now(fold=1), of_now(draws={"sample": 2.0})]
    for path in (paths.FOLDS, paths.packed_index("sample")):
        path.write_text(path.read_text() + "\n")
        found.append(of_now())
    change(code / "data/loader.py", r"\bTrue\b", "False")
    found.append(of_now())
    weights = Path("own.safetensors")
    own = MODEL.model_copy(update={"pretrained": str(weights)})
    for content in ("one", "other"):
        weights.write_text(content)
        found.append(of_now(own))
    assert len(set(found)) == len(found)
    assert of_now(own) == found[-1]


def test_by_hand_the_section_must_be_that_of_params_and_by_dvc_it_is_the_recorded_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = YAML(typ="safe").load(Path("params.yaml"))
    settings["models"]["tiny"]["epochs"] = 1
    YAML(typ="safe").dump(settings, Path("params.yaml"))
    with pytest.raises(
        InputError, match=r"model-params/tiny\.json is older than params\.yaml: run dvc repro complete-models"
    ):
        train.main()
    monkeypatch.setenv("DVC_STAGE", "train@tiny-0")
    train.main()
    assert len(pd.read_csv(paths.history("tiny", 0))) == MODEL.epochs
    paths.model_params("tiny").unlink()
    with pytest.raises(InputError, match=r"model-params/tiny\.json is missing or of another version: run dvc repro"):
        train.main()
    assert folder.exists()
