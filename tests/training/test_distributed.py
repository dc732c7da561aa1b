"""Several processes take the steps that one does, and none is left behind when one is lost."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from torch import nn

from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.models.losses import OVER_BATCH
from pipeline.models.network import Network
from pipeline.stages import complete_models
from pipeline.stages import train as train_stage
from pipeline.stages import tta as tta_stage
from pipeline.training import distributed
from pipeline.training.distributed import SINGLE_PROCESS, World, join, join_for
from pipeline.training.loop import fit
from pipeline.training.saved_states import SavedStates
from tests.fixtures.models import CLASSICAL, FROZEN, TINY
from tests.training import two_processes
from tests.training.test_loop import MACHINE, two_patterns

ROOT = Path(__file__).parents[2]


def train(folder: Path, devices: int, *killed: str) -> subprocess.CompletedProcess[str]:
    """Run the training of `two_processes` in processes of its own, on the CPU."""
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.training.two_processes", str(folder), str(devices), *killed]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process does."""
    folder = tmp_path_factory.mktemp("one")
    done = train(folder, 1)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes do, the second of which was killed once; the states after that are kept."""
    folder = tmp_path_factory.mktemp("two")
    lost = train(folder, 2, "1")
    assert lost.returncode != 0
    assert "Traceback" not in lost.stderr
    # Fabric looks for lost children every few seconds, and kills the first process if it is sooner than its message.
    assert lost.returncode == -signal.SIGKILL or "process 1 of 2 failed or lost the others" in lost.stderr
    assert lost.returncode == -signal.SIGKILL or "the same command resumes" in lost.stderr
    assert not (folder / "result.npz").exists()
    shutil.copytree(folder / "states", folder / "states of two")
    resumed = train(folder, 2)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after 1 of 3 epochs" in resumed.stderr
    return folder


def same(first: Path, second: Path) -> None:
    with np.load(first / "result.npz") as one, np.load(second / "result.npz") as two:
        assert one["seen"].shape == (3, 17, 28)
        np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-3)
        np.testing.assert_allclose(two["seen"], one["seen"], atol=1e-3)


def test_two_processes_train_as_one_also_after_one_was_lost(one: Path, two: Path) -> None:
    same(one, two)


def test_one_process_goes_on_with_what_two_have_saved(one: Path, two: Path, tmp_path: Path) -> None:
    shutil.copytree(two / "states of two", tmp_path / "states")
    resumed = train(tmp_path, 1)
    assert "resuming after 1 of 3 epochs" in resumed.stderr
    same(one, tmp_path)


@pytest.mark.parametrize("name", two_processes.RECIPES)
def test_a_step_of_two_processes_is_that_of_one(one: Path, two: Path, name: str) -> None:
    expected, found = (torch.load(folder / "steps.pt")[name] for folder in (one, two))
    assert found["losses"] == pytest.approx(expected["losses"], rel=1e-5)
    torch.testing.assert_close(found["statistics"], expected["statistics"], rtol=1e-4, atol=1e-6)
    gradients = expected["gradients"]
    torch.testing.assert_close(found["gradients"], gradients, rtol=0, atol=1e-5 * gradients.abs().max().item())


@pytest.mark.parametrize(("name", "recipe"), two_processes.RECIPES.items())
def test_a_step_communicates_once_and_for_each_batch_norm_and_loss_over_the_batch(
    one: Path, two: Path, name: str, recipe: params.NetworkModel
) -> None:
    alone, found = (torch.load(folder / "steps.pt")[name] for folder in (one, two))
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in Network(recipe).modules())
    gathers = recipe.accumulate * (not OVER_BATCH.isdisjoint(recipe.loss))
    assert found["all_reduce"] == 1 + 2 * norms * recipe.accumulate  # forward and backward
    assert found["all_gather"] == gathers
    assert found["sent"] == found["all_reduce"] + gathers  # nothing else, such as a barrier
    assert alone["sent"] == 0


@pytest.mark.parametrize("model", [FROZEN, CLASSICAL], ids=lambda model: model.kind)
@pytest.mark.parametrize("launcher", [{}, {"RANK": "0"}, {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}])
def test_a_closed_form_never_starts_a_second_process(
    monkeypatch: pytest.MonkeyPatch, model: params.Model, launcher: dict[str, str]
) -> None:
    monkeypatch.setattr(distributed, "join", lambda devices: pytest.fail(f"joined {devices}"))
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    assert join_for(model, 2) is SINGLE_PROCESS


@pytest.mark.parametrize("model", [FROZEN, CLASSICAL], ids=lambda model: model.kind)
@pytest.mark.parametrize("launcher", [{"RANK": "1"}, {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}])
def test_a_second_process_that_a_launcher_started_leaves_a_closed_form_to_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: params.Model, launcher: dict[str, str]
) -> None:
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    assert join_for(model, 1) is None
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    settings = YAML(typ="safe").load(Path("params.yaml"))
    settings["models"] = {"tiny": model.model_dump(mode="json")}
    YAML(typ="safe").dump(settings, Path("params.yaml"))
    complete_models.main()
    before = set(tmp_path.rglob("*"))
    for stage in (train_stage, tta_stage):
        monkeypatch.setattr("sys.argv", ["stage", "--model", "tiny", "--fold", "0"])
        stage.main()
    assert set(tmp_path.rglob("*")) == before


def test_fewer_samples_than_a_batch_are_left_to_one_process(tmp_path: Path) -> None:
    states, samples = SavedStates(tmp_path, "run"), two_patterns(6)
    with pytest.raises(InputError, match="6 samples are fewer than a batch of 8: use one process"):
        fit(Network(TINY), samples, samples, TINY, MACHINE, lambda _epoch, _seen: 0.0, states, {}, World(0, 2))


def test_a_single_process_communicates_with_nobody() -> None:
    assert join(1) is SINGLE_PROCESS
    rows = np.ones((2, 28), np.float32)
    assert SINGLE_PROCESS.gather(rows) is rows
    loss = torch.tensor(2.0)
    SINGLE_PROCESS.average([loss])
    assert loss == 2


def test_an_error_of_a_process_alone_is_not_explained_away() -> None:
    with pytest.raises(RuntimeError, match="ours"), SINGLE_PROCESS.explain_lost_process():
        raise RuntimeError("ours")
    with (
        pytest.raises(InputError, match=r"process 2 of 3 failed or lost the others \(gone\)"),
        World(1, 3).explain_lost_process(),
    ):
        raise RuntimeError("gone\nat some line")


@pytest.mark.parametrize(
    ("environment", "layout"),
    [
        ({}, (1, 3, False)),
        ({"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, (2, 4, True)),
        ({"SLURM_STEP_NUM_TASKS": "6", "SLURM_STEP_NUM_NODES": "3"}, (3, 2, True)),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}, (1, 3, False)),  # a shell on a node
        ({"SLURM_NTASKS": "6"}, (1, 3, False)),  # a batch script that started this process itself
    ],
)
def test_who_starts_the_processes_says_how_many(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], layout: tuple[int, int, bool]
) -> None:
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert distributed._layout(3) == layout


def test_apples_gpu_trains_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(InputError, match=r"machine\.devices in params\.yaml is 2, but there are 1 GPUs"):
        join(2)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match=r"machine\.devices in params\.yaml is 3, but there are 2 GPUs"):
        join(3)
