"""The benchmark for GPUs: it ends at once without one, and what can be tested on a CPU is."""

import json
import time

import pytest
import torch
from torch.nn import functional as F

from benchmarks import gpu
from pipeline.core import params
from tests.fixtures.models import TINY

MACHINE = params.load().machine.model_copy(update={"workers": 0})


def session(seconds: float) -> gpu.Session:
    return gpu.Session(time.monotonic() + seconds, MACHINE)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_without_a_gpu_it_says_so_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(8)
    said, figures = capsys.readouterr().out.splitlines()
    assert said == "no GPU: nothing to measure"
    assert json.loads(figures) == {"gpu": None}


def test_what_does_not_fit_into_the_time_is_left_out_and_an_error_stops_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise torch.OutOfMemoryError("too large")

    measured = session(60)
    done: list[str] = []
    measured.run("long", 61, lambda: done.append("long"))
    measured.run("failing", 1, fail)
    measured.run("short", 1, lambda: done.append("short"))
    assert done == ["short"]
    assert measured.left_out == ["long"]
    assert "failed: OutOfMemoryError: too large" in capsys.readouterr().out


def test_bytes_and_operations_are_those_of_convolutions_and_products() -> None:
    images, weight = torch.ones(2, 3, 8, 8), torch.ones(5, 3, 3, 3, requires_grad=True)
    with gpu.Traffic() as traffic:
        result = F.conv2d(images, weight, padding=1).relu() + 1
    assert result.shape == (2, 5, 8, 8)
    assert traffic.bytes == 4 * (2 * 3 * 64 + 5 * 3 * 9 + 2 * 5 * 64)

    few, many = (gpu.cost(TINY.model_copy(update={"batch_size": size}), gpu_batch(size)) for size in (8, 16))
    assert few[0] < many[0] < 2 * few[0]  # the weights are read once
    assert many[1] == 2 * few[1]


def gpu_batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    return gpu.noise(TINY.model_copy(update={"batch_size": size}))


def test_bandwidth_and_arithmetic_are_positive_and_plausible() -> None:
    bandwidth, arithmetic = gpu.speeds(copied=2**24, matrix=256, dtype=torch.float32)
    assert 1e8 < bandwidth < 1e14
    assert 1e8 < arithmetic < 1e16


def test_throughputs_and_limits_fill_the_figures() -> None:
    measured = session(600)
    gpu.throughput(measured, "tiny", TINY, steps=2, rounds=1)
    [row] = measured.rows
    assert row["model"] == "tiny"
    assert float(str(row["full, images/s"])) > 0
    assert float(str(row["whole over bare"])) > 0


def test_cbam_is_timed_against_the_same_network_without_it() -> None:
    measured = session(600)
    gpu.against_plain(measured, TINY)
    assert 0.2 < (measured.figures["cbam_over_plain_compiled"] or 0) < 10


def test_a_training_is_killed_and_resumed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    recipe = TINY.model_copy(update=gpu.TRAINING | {"backbone": TINY.backbone, "size": 64, "batch_size": 16})
    gpu.killed_and_resumed(recipe, fields=96)
    said = capsys.readouterr().out
    assert "resuming after" in said
    assert "falls" in said
    assert "failed" not in said


@pytest.mark.parametrize("compiled", [False, True])
def test_large_networks_are_those_of_the_competition(compiled: bool) -> None:
    recipe = gpu.with_backbone(params.load().networks[0], "resnet34", compiled=compiled)
    assert (recipe.size, recipe.augment.crop, recipe.batch_size, recipe.attention) == (512, 1, 64, "cbam")
    assert recipe.compile == compiled
    batch, _ = gpu.noise(recipe.model_copy(update={"batch_size": 2}))
    assert batch.shape == (2, 4, 512, 512)
