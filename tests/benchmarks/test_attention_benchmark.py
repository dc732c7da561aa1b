"""The attention benchmark runs at toy size; CBAM needs about as much activation memory as timm's."""

import pytest

from benchmarks import attention


def test_activation_memory_and_ratios() -> None:
    figures = attention.main("test_resnet", [32], batch=2, rounds=1)
    ratios = {
        f"{pair}_{kind}" for pair in ("cbam_over_plain", "se_over_plain", "cbam_over_timm") for kind in ("fp32", "bf16")
    }
    assert ratios < set(figures)
    plain, se, cbam, timm = (figures[f"{name}_activation_mb"] for name in attention.NETWORKS)
    assert plain < se < cbam
    assert cbam == pytest.approx(timm, rel=0.05)
