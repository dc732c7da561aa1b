"""Time and memory cost of attention blocks in a training step: ``python -m benchmarks.attention``.

Compares a plain ResNet-18 with squeeze-and-excitation, this project's CBAM and timm's CBAM, in interleaved rounds. A
step is forward, loss, backward and optimizer on a batch of four-channel images in memory, channels last: on the CPU in
fp32 and bf16 at 128 and 256 px; on a GPU, if there is one, in bf16 at 512 px, eager and compiled.

The last line is JSON: ratios of median step times at the first size, and the memory that an fp32 forward pass saves
for the backward pass.
"""

import argparse
import statistics
from collections.abc import Callable

import pandas as pd
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.interleaved import Seconds, measure, ratio_of_medians, report
from pipeline.core import hardware
from pipeline.core.labels import CHANNELS, LABELS
from pipeline.models.attention import gate_layer

NETWORKS = ("plain", "se", "cbam", "timm")
GPU_PX = 512


def network(name: str, backbone: str) -> nn.Module:
    """Build one of ``NETWORKS``; the weights outside the attention blocks are the same."""
    layer = {"plain": None, "se": gate_layer("channel", "paper"), "cbam": gate_layer("cbam", "paper"), "timm": "cbam"}[
        name
    ]
    torch.manual_seed(0)
    net: nn.Module = timm.create_model(
        backbone, in_chans=len(CHANNELS), num_classes=len(LABELS), block_args={"attn_layer": layer}
    )
    return net.to(memory_format=torch.channels_last)


def step(net: nn.Module, px: int, batch: int, *, bf16: bool, device: str = "cpu") -> Callable[[], None]:
    """Return a function that takes one training step on a batch in memory."""
    net = net.to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    images = torch.randn(batch, len(CHANNELS), px, px, device=device).contiguous(memory_format=torch.channels_last)
    targets = torch.rand(batch, len(LABELS), device=device)

    def run() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            logits = net(images)
        loss = F.binary_cross_entropy_with_logits(logits.float(), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def activation_mb(net: nn.Module, px: int, batch: int) -> float:
    """Memory that the forward pass saves for the backward pass (MB); it limits the batch size."""
    saved: dict[int, int] = {}

    def record(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        loss = net(torch.randn(batch, len(CHANNELS), px, px).contiguous(memory_format=torch.channels_last)).sum()
    weights = {weight.untyped_storage().data_ptr() for weight in net.parameters()}
    del loss
    return sum(size for address, size in saved.items() if address not in weights) / 1e6


def compare(backbone: str, px: int, batch: int, rounds: int, *, bf16: bool) -> Seconds:
    """Time all networks on the CPU in interleaved rounds."""
    cases = {name: step(network(name, backbone), px, batch, bf16=bf16) for name in NETWORKS}
    return measure(cases, rounds)


def on_gpu(backbone: str, batch: int, rounds: int) -> tuple[list[dict[str, object]], dict[str, float]]:
    """Rows of the table and ratios on the GPU, eager and compiled."""
    rows, figures = [], {}
    for kind in ("eager", "compiled"):
        nets = {name: network(name, backbone) for name in NETWORKS}
        if kind == "compiled":
            for net in nets.values():
                net.compile()
        cases = {name: step(net, GPU_PX, batch, bf16=True, device="cuda") for name, net in nets.items()}
        seconds = measure(cases, rounds, warm_up=3)
        rows += table_rows(seconds, f"gpu {kind}", GPU_PX, batch)
        figures[f"cbam_over_plain_gpu_{kind}"] = ratio_of_medians(seconds, "cbam", "plain")
        torch.cuda.reset_peak_memory_stats()
        cases["cbam"]()
        figures[f"cbam_peak_mb_gpu_{kind}"] = torch.cuda.max_memory_allocated() / 1e6
    return rows, figures


def table_rows(seconds: Seconds, device: str, px: int, batch: int) -> list[dict[str, object]]:
    """A row per network: milliseconds per step, images per second, and the ratio to the plain network."""
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    return [
        {
            "device": device,
            "px": px,
            "network": name,
            "ms per step": 1e3 * medians[name],
            "images per second": batch / medians[name],
            "relative to plain": ratio_of_medians(seconds, name, "plain"),
        }
        for name in seconds
    ]


def main(backbone: str, sizes: list[int], batch: int, rounds: int) -> dict[str, float]:
    """Measure, print and return the ratios at the first size."""
    hardware.prepare()  # the training loop does the same
    rows, figures = [], {}
    for px in sizes:
        for kind, bf16 in (("fp32", False), ("bf16", True)):
            seconds = compare(backbone, px, batch, rounds, bf16=bf16)
            rows += table_rows(seconds, f"cpu {kind}", px, batch)
            if px == sizes[0]:
                figures[f"cbam_over_plain_{kind}"] = ratio_of_medians(seconds, "cbam", "plain")
                figures[f"se_over_plain_{kind}"] = ratio_of_medians(seconds, "se", "plain")
                figures[f"cbam_over_timm_{kind}"] = ratio_of_medians(seconds, "cbam", "timm")
    for name in NETWORKS:
        figures[f"{name}_activation_mb"] = activation_mb(network(name, backbone), sizes[0], batch)
    if torch.cuda.is_available():
        gpu_rows, gpu_figures = on_gpu(backbone, 4 * batch, rounds)
        rows, figures = rows + gpu_rows, figures | gpu_figures
    report(pd.DataFrame(rows), figures)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18", help="a timm ResNet (default: %(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256], help="image sizes on the CPU (pixels)")
    parser.add_argument("--batch", type=int, default=16, help="images per batch (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=11, help="measured rounds (default: %(default)s)")
    arguments = parser.parse_args()
    main(arguments.backbone, arguments.sizes, arguments.batch, arguments.rounds)
