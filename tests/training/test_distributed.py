"""Several processes train as one does: the same losses and predictions, and none left behind when one is lost."""

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

from pipeline.core import params, paths
from pipeline.core.errors import InputError
from pipeline.models import checkpoint
from pipeline.models.network import Network
from pipeline.models.provenance import Provenance
from pipeline.training import distributed
from pipeline.training.distributed import SINGLE_PROCESS, World, join
from tests.fixtures.models import CLASSICAL, FROZEN, TINY
from tests.fixtures.runs import write_run
from tests.training import two_processes
from tests.training.test_loop import MACHINE

ROOT = Path(__file__).parents[2]


def train(folder: Path, devices: int, *killed: str) -> subprocess.CompletedProcess[str]:
    """Run the training of `two_processes` in processes of its own, on the CPU."""
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.training.two_processes", str(folder), str(devices), *killed]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_two_processes_train_as_one_and_a_lost_one_ends_the_run_which_goes_on(tmp_path: Path) -> None:
    two_processes.main(tmp_path, MACHINE.model_copy(update={"devices": 1}), None)
    lost = train(tmp_path / "two", 2, "1")
    assert lost.returncode != 0
    assert "Traceback" not in lost.stderr
    # Fabric looks for lost children every few seconds, and kills the first process if it is sooner than its message.
    assert lost.returncode == -signal.SIGKILL or "process 1 of 2 failed or lost the others" in lost.stderr
    assert lost.returncode == -signal.SIGKILL or "the same command resumes" in lost.stderr
    assert not (tmp_path / "two" / "result.npz").exists()
    resumed = train(tmp_path / "two", 2)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after 1 of 3 epochs" in resumed.stderr
    with np.load(tmp_path / "result.npz") as one, np.load(tmp_path / "two" / "result.npz") as two:
        assert one["seen"].shape == (3, 17, 28)
        np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-3)
        np.testing.assert_allclose(two["seen"], one["seen"], atol=1e-3)


@pytest.mark.parametrize("model", [FROZEN, CLASSICAL], ids=lambda model: model.kind)
def test_a_closed_form_takes_one_process_of_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: params.Model
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    settings = YAML(typ="safe").load(Path("params.yaml"))
    settings["models"] = {"tiny": model.model_dump(mode="json")}
    settings["machine"]["devices"] = 2
    YAML(typ="safe").dump(settings, Path("params.yaml"))
    write_run()
    checkpoint.save(Path("own.safetensors"), Network(TINY), TINY, Provenance())
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipeline.stages.train", "--model", "tiny", "--fold", "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    assert paths.model("tiny", 0).exists()
    assert done.stderr.count("held-out loss") == 1, done.stderr


def test_a_single_process_communicates_with_nobody() -> None:
    assert join(1) is SINGLE_PROCESS
    rows = np.ones((2, 28), np.float32)
    assert SINGLE_PROCESS.gather(rows) is rows
    loss = torch.tensor(2.0)
    assert SINGLE_PROCESS.all_reduce_mean(loss) is loss


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
        ({}, (1, 2, False)),
        ({"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, (2, 4, True)),
        ({"SLURM_STEP_NUM_TASKS": "6", "SLURM_STEP_NUM_NODES": "3"}, (3, 2, True)),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}, (1, 2, False)),  # a shell on a node
        ({"SLURM_NTASKS": "6"}, (1, 2, False)),  # a batch script that started this process itself
    ],
)
def test_who_starts_the_processes_says_how_many(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], layout: tuple[int, int, bool]
) -> None:
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert distributed._layout("auto") == layout


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match=r"machine\.devices in params\.yaml is 3, but there are 2 GPUs"):
        join(3)
