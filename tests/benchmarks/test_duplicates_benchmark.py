"""The near-duplicate benchmark runs at toy size and separates copies from other fields."""

from pathlib import Path

import numpy as np

from benchmarks import duplicates
from pipeline.core.labels import CHANNELS
from pipeline.sources.images import encode_png


def test_copies_are_separated_from_other_fields(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for id_ in ("a", "b"):
        coarse = random.integers(0, 256, (8, 8), dtype=np.uint8)
        for channel in CHANNELS[:3]:
            image = np.kron(coarse, np.ones((16, 16), np.uint8))
            (tmp_path / f"{id_}_{channel}.png").write_bytes(encode_png(image))
    figures = duplicates.main(fields=12, size=96, real=[tmp_path])
    assert figures["simulated"]["pairs"] > 0
    real = figures[f"{tmp_path.parent.name}/{tmp_path.name}"]
    copies = 1 + len(duplicates.CHANGES)
    assert real["pairs"] == 2 * copies * (copies - 1) / 2
    assert real["precision"] == 1
    assert real["smallest_other_distance"] > real["largest_copy_distance"]
