"""Weights from simulated fields: from a profile to files, to the same bytes after being killed at any stage."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML

from pipeline.commands import train_weights
from pipeline.core import params, paths, processors
from pipeline.core.errors import InputError
from pipeline.core.locks import locked
from pipeline.models import checkpoint
from pipeline.models.network import Network
from pipeline.models.pretrained import start_from_weights
from pipeline.models.provenance import Provenance
from pipeline.simulation import field_store
from pipeline.simulation.competition import plan
from tests.fixtures.models import TINY

ROOT = Path(__file__).parents[2]
SHARD = 3
STEPS = 4
"""Per epoch."""

FIELDS = params.Simulation(
    seed=3, train=8, test=4, size=64, fields_per_antibody=1.5, near_duplicates=0, test_exposure=1
)
MODEL = TINY.model_copy(
    update={
        "backbone": "resnet10t",
        "widths": (8, 16, 24, 32),
        "head": "label_queries",
        "pyramid": 8,
        "size": 64,
        "epochs": 2,
        "batch_size": 2,
        "augment": TINY.augment.model_copy(update={"crop": 0.5, "warp": 0, "drop_stains": 0.3}),
    }
)

KILLED_DRAWING = f"""
import os, signal, sys
from pipeline.commands import train_weights
from pipeline.simulation import field_store

in_order = field_store.in_order

def killed(*arguments):
    for number, field in enumerate(in_order(*arguments)):
        if number == {SHARD + 1}:
            os.kill(os.getpid(), signal.SIGKILL)
        yield field

field_store.SHARD, field_store.in_order = {SHARD}, killed
train_weights.main(sys.argv[1:])
"""
"""Killed when the second shard has one field."""

KILLED_TRAINING = f"""
import os, signal, sys
from pipeline.commands import train_weights
from pipeline.simulation import field_store
from pipeline.training.loop import TrainingRun

record_step = TrainingRun.record_step

def killed(run, loss):
    record_step(run, loss)
    if (run.epoch, run.step) == (1, 2):
        os.kill(os.getpid(), signal.SIGKILL)

field_store.SHARD, TrainingRun.record_step = {SHARD}, killed
train_weights.main(sys.argv[1:])
"""
"""Killed after two steps of the second epoch, which are not saved."""


def write_profile(folder: Path, **changes: dict[str, Any]) -> None:
    """Write `cells.yaml`; ``changes`` are new values in its sections."""
    profile = {"fields": FIELDS.model_dump(mode="json"), "model": MODEL.model_dump(mode="json")}
    for section, values in changes.items():
        profile[section] |= values
    YAML(typ="safe").dump(profile, folder / "cells.yaml")


def train(*arguments: str) -> tuple[bytes, bytes]:
    """Train in this process and in the working folder; the bytes of the weights and of the learning curve."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processors, "workers", lambda *_: 0)
        patch.setattr(field_store, "SHARD", SHARD)
        train_weights.main(["cells.yaml", *arguments])
    return Path("cells.safetensors").read_bytes(), Path("cells.csv").read_bytes()


def kill(folder: Path, script: str) -> None:
    """Train as a program that is killed, and check that it leaves no process behind."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, "cells.yaml"]
    child = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)
    assert child.wait(timeout=300) == -signal.SIGKILL
    deadline = time.monotonic() + 60
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(child.pid, 0)
            time.sleep(0.1)
        os.killpg(child.pid, signal.SIGKILL)
        raise AssertionError("the program left processes behind")


def never(*_: object, **__: object) -> None:
    raise AssertionError("drawn again")


def shards(drawn: Path) -> list[str]:
    """The complete shards in a folder of drawn fields."""
    return sorted(path.relative_to(drawn).as_posix() for path in drawn.glob("*/fields-*"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_profile(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    write_profile(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train("--keep-fields")
    return folder


@pytest.fixture
def finished(_finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder of a run without interruption whose fields were kept, as the working folder."""
    copy = shutil.copytree(_finished, tmp_path / "finished")
    monkeypatch.chdir(copy)
    return copy


def test_the_weights_are_half_and_load(finished: Path) -> None:
    path = finished / "cells.safetensors"
    network, model = checkpoint.load(path)
    assert model == MODEL
    stored, _ = checkpoint.read(path)
    for name, weight in stored.items():
        assert weight.dtype == (torch.float16 if weight.ndim > 1 else network.state_dict()[name].dtype), name
    torch.manual_seed(MODEL.seed)
    fresh = Network(MODEL).state_dict()
    trained = [name for name, weight in fresh.items() if weight.ndim > 1 and ".se." not in name]
    assert all((fresh[name] - stored[name]).abs().max() > 1e-3 for name in trained)  # more than rounding
    assert network(torch.zeros(1, 4, 64, 64, dtype=torch.uint8)).isfinite().all()


def test_the_weights_record_the_fields_they_were_trained_on_and_start_another_model(finished: Path) -> None:
    path, entries = finished / "cells.safetensors", plan(FIELDS)
    _, description = checkpoint.read(path)
    seen = Provenance.from_json(description["seen"], "cells.safetensors")
    assert seen == Provenance.of_ids(entry.id for entry in entries if entry.split == "train")
    assert len(seen.digests) == FIELDS.train
    assert not seen.digests & Provenance.of_ids(entry.id for entry in entries if entry.split == "test").digests
    model = MODEL.model_copy(update={"pretrained": str(path), "seed": 9})
    network = Network(model)
    assert start_from_weights(network, model) == seen
    stored, started = checkpoint.load(path)[0].state_dict(), network.state_dict()
    different = {name for name in stored if not torch.equal(stored[name], started[name])}
    assert different <= {"normalise.mean", "normalise.std"}


def test_the_learning_curve_has_a_row_per_evaluation(finished: Path) -> None:
    curve = pd.read_csv(finished / "cells.csv")
    assert curve["epoch"].tolist() == [0, 1]
    assert curve[["train_loss", "held_out_loss"]].notna().all(axis=None)
    assert not {"images_per_second", "data_wait", "memory_gb"} & set(curve)


def test_a_run_killed_while_it_draws_and_while_it_trains_goes_on_to_the_same_bytes(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = [(finished / name).read_bytes() for name in ("cells.safetensors", "cells.csv")]
    folder = tmp_path / "killed"
    folder.mkdir()
    monkeypatch.chdir(folder)
    write_profile(folder)
    kill(folder, KILLED_DRAWING)
    (drawn,) = (paths.RESUME / "weights").glob("fields-*")
    assert shards(drawn) == ["train/fields-000000"]
    first = (drawn / "train/fields-000000/images.npy").stat().st_mtime_ns
    kill(folder, KILLED_TRAINING)
    assert (drawn / "train/fields-000000/images.npy").stat().st_mtime_ns == first
    assert not [path.name for path in folder.iterdir() if path.suffix in {".safetensors", ".csv"}]
    monkeypatch.setattr(field_store, "render_with_masks", never)
    capsys.readouterr()
    assert list(train()) == expected
    assert f"resuming after 1 of {MODEL.epochs} epochs and 0 steps" in capsys.readouterr().err
    assert not list((paths.RESUME / "weights").iterdir())  # neither fields nor states are left


def test_a_second_run_of_the_same_profile_is_refused(folder: Path) -> None:
    write_profile(folder)
    profile = folder / "cells.yaml"
    with (
        locked(train_weights.states_folder(profile) / "lock"),
        pytest.raises(InputError, match="another run is using this folder: wait for it, or stop it"),
    ):
        train_weights.main([str(profile)])
    assert not profile.with_suffix(".safetensors").exists()


def test_fields_are_removed_unless_they_are_to_be_kept(finished: Path) -> None:
    (kept,) = (finished / ".resume/weights").iterdir()
    assert shards(kept) == [f"test/fields-{start:06}" for start in (0, 3)] + [
        f"train/fields-{start:06}" for start in (0, 3, 6)
    ]
    train()
    assert not list((finished / ".resume/weights").iterdir())


def test_kept_fields_are_drawn_again_only_for_another_simulation_or_size(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [(finished / name).read_bytes() for name in ("cells.safetensors", "cells.csv")]
    monkeypatch.setattr(field_store, "render_with_masks", never)
    assert list(train("--keep-fields")) == before
    write_profile(finished, model={"seed": 1})
    assert train("--keep-fields")[0] != before[0]
    changed: list[dict[str, Any]] = [
        {"fields": {"seed": 4}},
        {"model": {"size": 32, "augment": MODEL.augment.model_dump() | {"crop": 1.0}}},
    ]
    for changes in changed:
        write_profile(finished, **changes)
        with pytest.raises(AssertionError, match="drawn again"):
            train("--keep-fields")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fields": {"sede": 3}}, r"fields\.sede: unknown key; allowed here: seed, train, test, size"),
        ({"fields": {"train": 0}}, r"fields\.train: .* greater than or equal to 1 \(it is 0\)"),
        ({"model": {"batchsize": 2}}, r"model\.batchsize: unknown key; allowed here: kind, size, seed, backbone"),
        (
            {"model": {"augment": {"blur": 1}}},
            r"model\.augment\.crop: this key is missing; .*augment\.blur: unknown key",
        ),
        ({"model": {"kind": "frozen"}}, r"model\.kind: .*'network' \(it is 'frozen'\)"),
        ({"model": {"size": 48}}, r"model\.size is 48: .*multiple of 32.*; model\.augment\.crop is 0\.5: .* not 24"),
        ({"model": {"head": "pooled", "pyramid": None}}, r"model\.head must be label_queries, with a pyramid"),
        ({"model": {"accumulate": 2}}, r"model\.accumulate is 2: it must be 1"),
        ({"model": {"pretrained": True}}, r"model\.pretrained is True: it must be false"),
        ({"model": {"batch_size": 9}}, r"model\.batch_size is 9: there are only 8 fields"),
        ({"model": {"normalise": "dataset"}}, r"model\.augment\.drop_stains needs normalise: image"),
    ],
)
def test_a_wrong_key_is_named_with_the_file_and_nothing_is_drawn(
    folder: Path, changes: dict[str, dict[str, Any]], message: str
) -> None:
    write_profile(folder, **changes)
    with pytest.raises(InputError, match=rf"^cells\.yaml: .*{message}"):
        train()
    assert [path.name for path in folder.iterdir()] == ["cells.yaml"]


def test_windows_of_a_rounded_size_are_accepted() -> None:
    model = MODEL.model_copy(update={"size": 96, "augment": MODEL.augment.model_copy(update={"crop": 0.3333})})
    fields = FIELDS.model_copy(update={"size": 96})
    train_weights.check(params.WeightsProfile(fields=fields, model=model), Path("cells.yaml"))


def test_other_sections_are_not_those_of_a_profile(folder: Path) -> None:
    shutil.copy(ROOT / "params.yaml", folder / "cells.yaml")
    message = r"^cells\.yaml: fields: this key is missing; .*sample: unknown key; allowed here: fields, model"
    with pytest.raises(InputError, match=message):
        train()


def test_a_missing_profile_is_named(folder: Path) -> None:
    (folder / "cells.yaml").unlink()
    with pytest.raises(InputError, match=r"^cells\.yaml is missing"):
        train()


def test_the_committed_profile_is_valid() -> None:
    profile = params.load_weights_profile(ROOT / "weights/cells.yaml")
    side = profile.model.augment.crop * profile.model.size
    assert side % 32 == profile.model.size % field_store.CELL == profile.model.augment.warp == 0
    assert profile.model.pretrained is False
    assert profile.model.pyramid
    sample = params.load(ROOT / "params.yaml").sample
    assert profile.fields.seed != sample.seed  # or `train` would refuse the weights
