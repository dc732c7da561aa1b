"""``python -m pipeline search``: an honest verdict, no look at the outer fold, nothing lost or repeated by a kill."""

import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

from pipeline.commands import search
from pipeline.core import params, paths
from pipeline.core.errors import InputError
from pipeline.core.locks import locked
from pipeline.data.fold_table import read_folds
from pipeline.models import checkpoint
from pipeline.models.network import Network
from pipeline.models.provenance import Provenance
from pipeline.search import trials
from pipeline.training.loop import TrainingRun
from tests.fixtures.searches import MODEL, Training, configure, planted, write_inputs

pytest.importorskip("optuna", reason="requirements-search.txt is not installed")

ROOT = Path(__file__).parents[2]
STEPS = Path("steps.log")

RECORDING = """
import os, signal, sys
from pipeline.commands import search
from pipeline.search.study import OpenTrial
from pipeline.training.loop import TrainingRun

record_step, complete, steps = TrainingRun.record_step, OpenTrial.complete, []

def recorded(run, loss):
    record_step(run, loss)
    with open("steps.log", "a") as file:
        print(run.states.folder, run.epoch, run.step, file=file)
    steps.append(1)
    if "{killed}" == "step" and len(steps) == 7:
        os.kill(os.getpid(), signal.SIGKILL)

def completed(trial, score):
    if "{killed}" == "end" and trial.number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    complete(trial, score)

TrainingRun.record_step, OpenTrial.complete = recorded, completed
search.main(["--trials", "3"])
"""
"""A search that writes each step to a file and is killed: in a training, or before a trained trial is recorded."""

Stub = Callable[[Callable[[params.Model], float]], list[Training]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_inputs()
    return tmp_path


@pytest.fixture
def stub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    """Put trainings of a planted quality in place of real ones, and get their log."""
    assert folder == Path.cwd()

    def stub(quality: Callable[[params.Model], float]) -> list[Training]:
        log: list[Training] = []
        monkeypatch.setattr(trials, "train_model", planted(quality, log))
        return log

    return stub


def quality(model: params.Model) -> float:
    """Best at a learning rate of .05; that of the default is poor."""
    assert isinstance(model, params.NetworkModel)
    return 2.5 - 1.5 * abs(math.log10(model.learning_rate / 0.05))


def result() -> Path:
    """The folder of the one study."""
    [found] = paths.SEARCH.iterdir()
    return found


def table() -> pd.DataFrame:
    return pd.read_csv(result() / "trials.csv")


def report() -> str:
    return (result() / "search.md").read_text()


def test_a_better_section_is_found_and_called_ahead_and_can_be_pasted(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    log = stub(quality)
    search.main(["--trials", "12"])
    found = table()
    best = found.sort_values(["score", "trial"], ascending=[False, True]).iloc[0]
    assert len(found) == 12
    assert (found["state"] == "complete").all()
    assert 0.02 < best["learning_rate"] < 0.1
    assert f"**Trial {best['trial']} is ahead of the default tiny: +" in report()
    assert report() in capsys.readouterr().out
    assert (result() / "importance.png").read_bytes().startswith(b"\x89PNG")
    assert "## Importance" in report()
    pasted = YAML(typ="safe").load(result() / "winner.yaml")["models"]["tiny"]
    settings = YAML(typ="safe").load(Path("params.yaml"))
    settings["models"]["tiny"] = pasted
    YAML(typ="safe").dump(settings, Path("params.yaml"))
    model = params.load().models["tiny"]
    trained = [training.section for training in log if training.job == f"trial-{best['trial']}, fold-1"]
    assert [model.model_copy(update={"evaluate_every": 1})] == trained


def test_no_trial_sees_the_outer_fold_and_the_verdict_is_of_new_seeds(stub: Stub) -> None:
    log = stub(quality)
    search.main(["--trials", "5"])
    inner = [training for training in log if "outer" not in training.job]
    outer = [training for training in log if "outer" in training.job]
    assert all(0 not in training.learned | training.predicted for training in inner)
    assert {(*training.learned, *training.predicted) for training in inner} == {(1, 2), (2, 1)}
    assert all((training.learned, training.predicted) == ({1, 2}, {0}) for training in outer)
    assert len(outer) == 4  # two seeds of the winner and of the default
    assert {training.section.seed for training in inner} == {MODEL.seed}
    assert {training.section.seed for training in outer} == {MODEL.seed + 1, MODEL.seed + 2}
    for training in outer:
        assert training.section.model_copy(update={"seed": 0, "evaluate_every": 1}) in [one.section for one in inner]


@pytest.mark.parametrize("objective", ["average_precision", "loss"])
def test_equally_good_trials_have_no_winner(stub: Stub, objective: str) -> None:
    configure(objective=objective, pruner="median", startup=2)
    stub(lambda _: 1.5)
    search.main(["--trials", "6"])
    assert "is not ahead of the default tiny: " in report() or "**No trial scored above the default: keep" in report()
    assert "If all 6 trials were equally good, the best one would still score +0." in report()


def test_the_same_command_trains_nothing_again_and_more_trials_are_added(stub: Stub) -> None:
    log = stub(quality)
    search.main(["--trials", "3"])
    first, trained = table(), len(log)
    shutil.rmtree(paths.SEARCH)
    search.main(["--trials", "3"])
    assert len(log) == trained
    search.main(["--trials", "5"])
    pd.testing.assert_frame_equal(table()[:3], first)
    assert len(table()) == 5
    search.main(["--trials", "4"])
    assert len(table()) == 5


def test_another_space_default_or_data_is_another_study(stub: Stub) -> None:
    stub(quality)
    search.main(["--trials", "2"])
    configure(seeds=3)
    search.main(["--trials", "2"])
    assert len(list(paths.SEARCH.iterdir())) == 1, "further seeds of the comparison belong to the same study"
    configure(startup=5)
    search.main(["--trials", "2"])
    configure(models={"tiny": MODEL.model_copy(update={"dropout": 0.2})})
    search.main(["--trials", "2"])
    paths.packed_index("sample").write_text(paths.packed_index("sample").read_text() + "\n")
    search.main(["--trials", "2"])
    assert len(list(paths.SEARCH.iterdir())) == 4


def test_a_trial_that_cannot_be_trained_is_recorded_and_the_default_must_be(stub: Stub) -> None:
    def diverges(model: params.Model) -> float:
        assert isinstance(model, params.NetworkModel)
        if "bce" in model.loss:
            raise InputError("the loss is nan")
        return quality(model)

    stub(diverges)
    search.main(["--trials", "6"])
    failed = table()[table()["state"] == "failed"]
    assert 0 < len(failed) < 6
    assert failed["score"].isna().all()
    assert "- Trial " in report()
    assert "the loss is nan" in report()
    configure(models={"tiny": MODEL.model_copy(update={"loss": {"bce": 1.0}})})
    with pytest.raises(InputError, match="the loss is nan"):
        search.main(["--trials", "6"])


def test_weights_that_have_seen_a_held_out_sample_are_refused(folder: Path) -> None:
    samples = read_folds()
    weights = folder / "own.safetensors"
    checkpoint.save(weights, Network(MODEL), MODEL, Provenance.of_samples(samples[samples["fold"] == 2]))
    configure(models={"tiny": MODEL.model_copy(update={"pretrained": str(weights)})})
    with pytest.raises(InputError, match=r"were trained on 30 of the 30 held-out samples of trial-0, fold-2 \(sample-"):
        search.main(["--trials", "2"])


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        (["--trials", "1"], {}, r"^--trials 1: give 2 or more, since the first trial is the default$"),
        (["--jobs", "0"], {}, r"^--jobs 0: there are \d+ (cores|GPUs), so give 1 to \d+$"),
        ([], {"outer_fold": 7}, r"^params\.yaml: search\.outer_fold is 7: data/folds\.csv has 0, 1, 2$"),
        ([], {"model": "other"}, r"^params\.yaml: search\.model is 'other': choose from tiny$"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_cannot_be_searched_is_said_before_anything_is_written(
    arguments: list[str], changes: dict[str, object], message: str
) -> None:
    configure(**changes)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        search.main(arguments)
    assert not paths.RESUME.exists()


@pytest.mark.usefixtures("folder")
def test_two_folds_are_too_few() -> None:
    samples = read_folds()
    samples[samples["fold"] != 2].to_csv(paths.FOLDS, index=False)
    with pytest.raises(InputError, match=r"data/folds\.csv has 2 folds, and a search needs 3: one judges the winner"):
        search.main([])


@pytest.mark.usefixtures("folder")
def test_a_second_search_at_the_same_time_is_refused() -> None:
    with locked(trials.STUDIES / "lock"), pytest.raises(InputError, match="another run is using this folder"):
        search.main(["--trials", "2"])


def kill(killed: str) -> None:
    """Search in a process that is killed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    script = RECORDING.replace("{killed}", killed)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def test_a_search_that_is_killed_goes_on_and_loses_and_repeats_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record_step = TrainingRun.record_step

    def recorded(run: TrainingRun[Network], loss: object) -> None:
        record_step(run, loss)  # type: ignore[arg-type]
        with STEPS.open("a") as file:
            print(run.states.folder.relative_to(Path.cwd()), run.epoch, run.step, file=file)

    monkeypatch.setattr(TrainingRun, "record_step", recorded)
    search.main(["--trials", "3"])
    expected = {path.name: path.read_bytes() for path in result().iterdir()}
    expected_steps = STEPS.read_text().splitlines()
    for path in (paths.SEARCH, paths.RESUME):
        shutil.rmtree(path)
    STEPS.unlink()

    kill("step")
    [study] = [path for path in (folder / ".resume/search").iterdir() if path.is_dir()]
    first = {path: path.stat().st_mtime_ns for path in study.glob("trial-*/*.npz")}
    assert len(first) == 1
    kill("end")
    assert all(path.stat().st_mtime_ns == written for path, written in first.items())
    capsys.readouterr()
    search.main(["--trials", "3"])
    assert "going on with trial 1, saved in" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in result().iterdir()} == expected
    steps = [line.removeprefix(f"{folder}/") for line in STEPS.read_text().splitlines()]
    assert len(steps) == len(set(steps)), "a step was taken twice"
    assert sorted(steps) == sorted(expected_steps)
    assert not list(study.glob("trial-*/*/")), "saved states are left"


@pytest.mark.usefixtures("folder")
def test_trials_run_side_by_side_on_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="requirements-cluster.txt is not installed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr("pipeline.core.processors.usable", lambda: 2)
    search.main(["--trials", "3", "--jobs", "2"])
    assert table()["trial"].tolist() == [0, 1, 2]
    assert (table()["state"] == "complete").all()
    side_by_side = table().loc[0, "score"]
    shutil.rmtree(paths.RESUME)
    shutil.rmtree(paths.SEARCH)
    search.main(["--trials", "2"])
    assert table().loc[0, "score"] == pytest.approx(side_by_side)
