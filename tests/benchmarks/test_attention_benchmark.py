"""The attention's benchmark runs at toy size and ends in its figures."""

from benchmarks import attention


def test_attention() -> None:
    figures = attention.main("test_resnet", [32], batch=2, rounds=1)
    ratios = {name: value for name, value in figures.items() if "_over_" in name}
    assert {"cbam_over_plain_fp32", "cbam_over_plain_bf16", "cbam_over_timm_bf16"} <= set(ratios)
    assert min(ratios.values()) > 0
