"""Speed of training on a GPU, and whether it resumes: ``python -m benchmarks.gpu [--minutes 8]``.

Measured in this order, until the time is over; what does not fit is left out and named.

1. ResNet-34 with CBAM at 512 px, compiled: images per second of the whole training step (loading, augmentation,
   optimizer and moving average included, as the stage ``train`` takes it) and of the bare step (forward, loss, backward
   and optimizer on one batch in device memory), in alternation; peak memory.
2. What limits it: the bandwidth and arithmetic that this GPU reaches in a copy and in a large product of matrices,
   against the bytes and operations of a step (a roofline estimate). Only inputs and outputs of convolutions and
   products are counted, each once per operation, as if everything else were fused into them.
3. CBAM against the same network without attention, compiled, in alternation.
4. The ten kernels that take most of its time.
5. A training on simulated fields: the loss falls, the process is killed, and another one resumes.
6. The same network not compiled, the models of params.yaml, ResNet-18 and ResNet-50 with CBAM, the largest batch.

The last line is JSON: ``images_per_second``, ``whole_over_bare`` (throughputs), ``cbam_over_plain_compiled`` (times)
and ``fraction_of_limit``, all of ResNet-34 with CBAM; null for what was left out. Without a GPU nothing is measured.
"""

import argparse
import gc
import itertools
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import interleaved, starts, training
from pipeline.core import hardware, params, processors
from pipeline.data.loader import Batch
from pipeline.models.network import compute_type

SIDE = 512
"""Side of the packed images, in pixels."""
BATCH = 64
KERNELS = 10
COMPILING = 150
"""Seconds that a measurement with a compilation is given; without one, a third of it."""
COPIED = 2**30
"""Bytes that are copied to measure the bandwidth."""
MATRIX = 8192
"""Rows and columns of the matrices whose product measures the arithmetic."""
FIELDS = 512
"""Simulated fields of the training that is killed and resumed."""
TRAINING = {"backbone": "resnet18", "size": 256, "epochs": 6, "evaluate_every": 1, "learning_rate": 1e-3}

HEAVY = ("convolution", "convolution_backward", "mm", "addmm", "bmm", "baddbmm")


@dataclass
class Session:
    """What is measured in the time given.

    Attributes:
        ends: when the time is over, as ``time.monotonic``.
        machine: the section machine.
        figures: for the last line.
        rows: throughputs, one per model and way of running it.
        left_out: names of what did not fit.
    """

    ends: float
    machine: params.Machine
    figures: dict[str, float | None] = field(default_factory=dict)
    rows: list[dict[str, object]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def run(self, name: str, seconds: float, measurement: Callable[[], None]) -> None:
        """Measure if ``seconds`` are left; an error is printed, and the others are still measured."""
        if time.monotonic() + seconds > self.ends:
            self.left_out.append(name)
            return
        started = time.monotonic()
        print(f"\n{name}", flush=True)
        try:
            measurement()
        except Exception as error:  # whatever it is, the other measurements and the figures count
            print(f"failed: {type(error).__name__}: {str(error)[:500]}")
        print(f"({time.monotonic() - started:.0f} s)", flush=True)
        torch.compiler.reset()
        gc.collect()
        torch.cuda.empty_cache()


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that convolutions and products of matrices read and write, each tensor once per operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.__name__.split(".")[0] in HEAVY:
            self.bytes += sum(tensor.nbytes for tensor in _tensors((args, result)))
        return result


def _tensors(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def cost(recipe: params.NetworkModel, batch: Batch) -> tuple[int, int]:
    """Bytes and floating-point operations of a bare step's convolutions and products."""
    step = training.bare_step(recipe, batch)
    step()
    with Traffic() as traffic:
        step()
    with FlopCounterMode(display=False) as flops:
        step()
    return traffic.bytes, flops.get_total_flops()


def speeds(copied: int = COPIED, matrix: int = MATRIX, dtype: torch.dtype = torch.bfloat16) -> tuple[float, float]:
    """Bytes per second of a copy (read and written), and operations per second of a product of matrices."""
    device = hardware.device()
    source = torch.empty(copied // 4, device=device)
    target = torch.empty_like(source)
    left = torch.randn(matrix, matrix, device=device, dtype=dtype)

    def copy() -> None:
        target.copy_(source)
        wait()

    def product() -> None:
        _ = left @ left
        wait()

    seconds = interleaved.measure({"copy": copy, "product": product}, rounds=9, warm_up=3)
    fastest = {name: min(values) for name, values in seconds.items()}
    return 2 * copied / fastest["copy"], 2 * matrix**3 / fastest["product"]


def wait() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def noise(recipe: params.NetworkModel) -> Batch:
    """A batch of noise, on which the time does not depend."""
    side = round(recipe.size * recipe.augment.crop)
    images = torch.randint(0, 256, (recipe.batch_size, 4, side, side), dtype=torch.uint8)
    return images.contiguous(memory_format=torch.channels_last), torch.rand(recipe.batch_size, 28).round()


def throughput(session: Session, name: str, recipe: params.NetworkModel, steps: int = 60, rounds: int = 2) -> None:
    """Images per second of the whole and of the bare step, over more steps than the loader has prefetched."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    seconds = training.measure(recipe, session.machine, steps, max(SIDE, recipe.size), rounds)
    images = steps * recipe.batch_size
    row: dict[str, object] = {"model": name, "compiled": recipe.compile, "batch": recipe.batch_size}
    row |= {f"{case}, images/s": images / statistics.median(seconds[case]) for case in ("full", "bare")}
    row |= {
        "whole over bare": interleaved.ratio(seconds, "bare", "full"),
        "peak GiB": torch.cuda.max_memory_allocated() / 2**30,
    }
    session.rows.append(row)
    print(pd.DataFrame([row]).to_string(index=False, float_format=lambda value: f"{value:.3f}"))


def headline(session: Session, recipe: params.NetworkModel) -> None:
    """The figures of the whole step."""
    throughput(session, "resnet34-cbam", recipe)
    row = session.rows[-1]
    session.figures["images_per_second"] = float(str(row["full, images/s"]))
    session.figures["whole_over_bare"] = float(str(row["whole over bare"]))


def limits(session: Session, recipe: params.NetworkModel) -> None:
    """How far the measured throughput is from what bandwidth and arithmetic allow."""
    moved, operations = cost(recipe.model_copy(update={"compile": False}), noise(recipe))
    bandwidth, arithmetic = speeds(dtype=compute_type(recipe.precision))
    by_traffic, by_arithmetic = recipe.batch_size * bandwidth / moved, recipe.batch_size * arithmetic / operations
    print(f"copy: {bandwidth / 1e9:,.0f} GB/s; product of matrices: {arithmetic / 1e12:,.0f} TFLOP/s")
    print(f"a step of {recipe.batch_size} images: {moved / 1e9:.1f} GB, {operations / 1e12:.2f} TFLOP")
    print(f"limit by memory traffic {by_traffic:,.0f} images/s, by arithmetic {by_arithmetic:,.0f} images/s")
    if measured := session.figures.get("images_per_second"):
        session.figures["fraction_of_limit"] = measured / min(by_traffic, by_arithmetic)


def against_plain(session: Session, recipe: params.NetworkModel) -> None:
    """Times of the bare step with and without CBAM, in alternation."""
    batch = noise(recipe)

    def case(attention: str) -> Callable[[], None]:
        step = training.bare_step(recipe.model_copy(update={"attention": attention}), batch)

        def several() -> None:
            for _ in range(4):
                step()
            wait()

        return several

    seconds = interleaved.measure({name: case(name) for name in ("cbam", "none")}, rounds=9)
    session.figures["cbam_over_plain_compiled"] = interleaved.ratio(seconds, "cbam", "none")
    print(f"CBAM over plain: {session.figures['cbam_over_plain_compiled']:.3f}")


def kernels(recipe: params.NetworkModel) -> None:
    """The kernels that take most time of a bare step."""
    step = training.bare_step(recipe, noise(recipe))
    for _ in range(3):
        step()
    wait()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        step()
        wait()
    events = [event for event in profiled.key_averages() if event.self_device_time_total > 0]
    events.sort(key=lambda event: -event.self_device_time_total)
    if not events:
        print("none was recorded: the driver may allow it to administrators only")
    total = sum(event.self_device_time_total for event in events)
    for event in events[:KERNELS]:
        print(f"{event.self_device_time_total / max(total, 1):6.1%} {event.count:5d} x  {event.key[:90]}")


def largest_batch(recipe: params.NetworkModel) -> None:
    """Double the batch until the memory does not suffice."""
    size = recipe.batch_size
    while True:
        try:
            larger = recipe.model_copy(update={"batch_size": 2 * size})
            training.bare_step(larger, noise(larger))()
            wait()
        except RuntimeError as error:  # out of memory, or more than 2 ** 31 elements
            print(f"{2 * size}: {type(error).__name__}")
            break
        size *= 2
    print(f"{size} images of {recipe.size} px (twice as many do not fit)")


def killed_and_resumed(recipe: params.NetworkModel, fields: int = FIELDS) -> None:
    """Train on simulated fields in a process that is killed after its first saved state, then in another one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "recipe.json").write_text(recipe.model_dump_json(), encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.gpu", "--child", str(folder), str(fields)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as first:
            assert first.stderr is not None  # for the type checker: it is a pipe
            while first.poll() is None and not list((folder / "states").rglob("*.pt")):
                time.sleep(0.2)
            first.send_signal(signal.SIGKILL)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print("\n".join(line for line in done.stderr.splitlines() if "loss" in line or "resuming" in line))
        if done.returncode or "resuming after" not in done.stderr:
            print(f"failed: {done.stderr[-2000:]}")
        else:
            losses = [float(loss) for loss in done.stdout.split()]
            print(f"loss {losses[0]:.4f} to {losses[-1]:.4f}: {'falls' if losses[-1] < losses[0] else 'DOES NOT FALL'}")


def child(folder: Path, fields: int) -> None:
    """Train on simulated fields, resuming from the states in the folder; print the loss of each epoch."""
    recipe = params.NetworkModel.model_validate_json((folder / "recipe.json").read_bytes())
    settings = params.load()
    sample = settings.sample.model_copy(update={"train": fields, "test": 32, "size": recipe.size, "seed": 77})
    machine = settings.machine.model_copy(update={"save_minutes": 0.05})
    _, rows = starts.train(recipe, starts.simulate(sample), machine, folder / "states")
    print(*(row.train_loss for row in rows[1:]))


def with_backbone(base: params.NetworkModel, backbone: str, *, compiled: bool) -> params.NetworkModel:
    """A timm ResNet with CBAM at 512 px, and a pooled head, in batches of 64."""
    whole = base.augment.model_copy(update={"crop": 1.0})
    update = {"backbone": backbone, "widths": None, "head": "pooled", "pyramid": None, "pretrained": False}
    return base.model_copy(
        update=update | {"size": SIDE, "batch_size": BATCH, "compile": compiled, "precision": "auto", "augment": whole}
    )


def print_machine() -> None:
    """Print what was measured on."""
    about = torch.cuda.get_device_properties(0)
    print(
        f"{torch.cuda.device_count()} x {about.name}, {about.total_memory / 2**30:.0f} GiB, compute capability "
        f"{about.major}.{about.minor}; {processors.usable()} cores; torch {torch.__version__}, CUDA "
        f"{torch.version.cuda}; precision auto is {compute_type('auto')}"
    )


def main(minutes: float) -> None:
    """Measure what fits into the minutes, and print it."""
    if not torch.cuda.is_available():
        print("no GPU: nothing to measure")
        print(json.dumps({"gpu": None}))
        return
    settings = params.load()
    session = Session(time.monotonic() + 60 * minutes, settings.machine)
    names = ("images_per_second", "whole_over_bare", "cbam_over_plain_compiled", "fraction_of_limit")
    session.figures = dict.fromkeys(names)
    print_machine()
    base = settings.networks[0]
    large, eager = (with_backbone(base, "resnet34", compiled=compiled) for compiled in (True, False))
    killable = with_backbone(base, "resnet18", compiled=False).model_copy(update=TRAINING)
    quick = COMPILING / 3
    session.run("resnet34-cbam, compiled", COMPILING, partial(headline, session, large))
    session.run("limits of resnet34-cbam", quick, partial(limits, session, large))
    session.run("CBAM against plain, compiled", COMPILING, partial(against_plain, session, large))
    session.run("kernels of resnet34-cbam, compiled", quick, partial(kernels, large))
    session.run("a training that is killed and resumed", 2 * quick, partial(killed_and_resumed, killable))
    session.run("resnet34-cbam", quick, partial(throughput, session, "resnet34-cbam", eager))
    for name, model in settings.models.items():
        if isinstance(model, params.NetworkModel):
            free = model.model_copy(update={"pretrained": False})
            session.run(name, quick, partial(throughput, session, name, free))
    for compiled, backbone in itertools.product((False, True), ("resnet18", "resnet50")):
        name, other = f"{backbone}-cbam", with_backbone(base, backbone, compiled=compiled)
        title, seconds = (f"{name}, compiled", COMPILING) if compiled else (name, quick)
        session.run(title, seconds, partial(throughput, session, name, other))
    session.run("largest batch of resnet34-cbam", quick, partial(largest_batch, eager))
    if session.left_out:
        print(f"\nleft out, no time: {'; '.join(session.left_out)}")
    print()
    interleaved.report(pd.DataFrame(session.rows), session.figures)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8, help="time for all of it (default: %(default)s)")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    parsed = parse(sys.argv[1:])
    if parsed.child:
        child(Path(parsed.child[0]), int(parsed.child[1]))
    else:
        main(parsed.minutes)
