"""What the fields of one antibody share: its cell line and the character of its staining."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.labels import LABELS
from pipeline.simulate.cells import CellLine

CELL_LINES = (
    # name, nucleus, reach, elongation, corners, ruffles, spacing, crowd, lobes
    CellLine("U-2 OS", 30, 3.0, 0.25, (4, 7), 0.015, 3.0, 13, 0.2),
    CellLine("A-431", 28, 2.3, 0.1, (5, 8), 0.02, 2.7, 22, 0.25),
    CellLine("U-251 MG", 30, 2.9, 0.5, (4, 6), 0.01, 3.0, 13, 0.3),
    CellLine("HeLa", 28, 2.6, 0.3, (4, 7), 0.015, 2.9, 16, 0.15),
    CellLine("MCF7", 27, 2.2, 0.1, (5, 8), 0.025, 2.6, 24, 0.15),
    CellLine("SiHa", 28, 2.6, 0.45, (4, 6), 0.02, 2.8, 15, 0.15),
)
EPITHELIAL = ("A-431", "MCF7")
"""The lines whose cells grow in contact."""
JUNCTIONS = LABELS.index("Cell junctions")


@dataclass(frozen=True)
class Staining:
    """How an antibody stains, in every field alike."""

    line: CellLine
    strength: dict[int, float]
    """Brightness of each of its labels; the strongest has 1."""
    variation: float
    """Spread of the brightness from cell to cell, as the deviation of its logarithm."""
    haze: tuple[float, float]
    """Off-target brightness of the nuclei and of the cytoplasm."""
    grain: float
    """Depth of the granular texture of diffuse staining, 0..1."""
    grain_size: float
    """Pixels at 512."""
    spot: float
    """Factor on the size of spots and the width of threads."""
    count: float
    """Factor on the number of spots and threads."""
    gain: tuple[float, float, float, float]
    """Exposure of the four channels, around 1."""
    style: float
    """Which look it takes where a location has several, 0..1."""
    defocus: float
    """Blur beyond the microscope's own, in pixels at 512."""


def draw_staining(rng: np.random.Generator, labels: Sequence[int]) -> Staining:
    """Draw an antibody that marks ``labels``."""
    lines = [line for line in CELL_LINES if JUNCTIONS not in labels or line.name in EPITHELIAL]
    line = lines[rng.integers(len(lines))]
    line = replace(
        line, nucleus=line.nucleus * rng.uniform(0.88, 1.12), crowd=round(line.crowd * rng.uniform(0.8, 1.1))
    )
    haze = rng.exponential(0.05, 2).clip(0, 0.16)
    gain = np.exp(rng.normal(0, 0.28, 4))
    strength = rng.uniform(0.4, 1.0, len(labels))
    return Staining(
        line=line,
        strength={label: float(share) for label, share in zip(labels, strength / strength.max(), strict=True)},
        variation=rng.uniform(0.1, 0.35),
        haze=(float(haze[0]), float(haze[1])),
        grain=rng.uniform(0.05, 0.3),
        grain_size=rng.uniform(1.5, 4.0),
        spot=rng.uniform(0.8, 1.3),
        count=rng.uniform(0.7, 1.4),
        gain=(float(gain[0]), float(gain[1]), float(gain[2]), float(gain[3])),
        style=rng.random(),
        defocus=rng.exponential(0.35),
    )
