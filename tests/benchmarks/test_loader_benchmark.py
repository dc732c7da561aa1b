"""The loader's benchmark runs at toy size and ends in its figures."""

from benchmarks import loader


def test_loader() -> None:
    figures = loader.main(samples=16, size=64, rounds=1)
    assert set(figures) == {"packed_over_png", "copy_over_packed", "augmented_over_png", "two_workers_over_one"}
    assert min(figures.values()) > 0
