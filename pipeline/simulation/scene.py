"""The input for drawing a location: cells, reference stains, and how the antibody stains."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.core.labels import LABELS
from pipeline.simulation import raster
from pipeline.simulation.cells import INTERPHASE, METAPHASE, CellLine, Field, Ints
from pipeline.simulation.raster import Floats, Image, Points
from pipeline.simulation.stains import Stains, draw_paths, inside

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
"""Cell lines whose cells grow in contact."""
JUNCTIONS = LABELS.index("Cell junctions")
COMPACT = 2.6
"""Brightness of dots and threads relative to diffuse staining, because they are smaller than the lens resolves."""


@dataclass(frozen=True)
class Staining:
    """How an antibody stains; the same in all of its fields."""

    line: CellLine
    strength: dict[int, float]
    """Brightness of each label; the maximum is 1."""
    variation: float
    """Variation of the brightness between cells, as the standard deviation of its logarithm."""
    haze: tuple[float, float]
    """Off-target brightness of the nuclei and of the cytoplasm."""
    grain: float
    """Contrast of the granular texture of diffuse staining, 0..1."""
    grain_size: float
    """Grain size of this texture, in pixels at 512."""
    spot: float
    """Factor for the size of spots and the width of threads."""
    count: float
    """Factor for the number of spots and threads."""
    gain: tuple[float, float, float, float]
    """Exposure of the four channels, around 1."""
    style: float
    """Selects the appearance of locations that have several, 0..1."""
    defocus: float
    """Blur in addition to the microscope's own, in pixels at 512."""


@dataclass(frozen=True)
class Scene:
    """A field of view without the protein."""

    field: Field
    stains: Stains
    staining: Staining

    @property
    def unit(self) -> float:
        """Pixels of this field per pixel at 512."""
        return self.field.scale

    @property
    def spot(self) -> float:
        """Pixels of this field per nominal pixel at 512, for the size of this antibody's spots and threads."""
        return self.field.scale * self.staining.spot

    def nuclei(self) -> Image:
        """Mask of the nuclei of cells that are not in metaphase, (S, S), 0 or 1."""
        return inside(self.field, -1, 0) - inside(self.field, -1, 0, phase=METAPHASE)

    def cytoplasm(self) -> Image:
        """Mask of the cells without their nuclei, (S, S), 0 or 1."""
        return inside(self.field, 0, 1)

    def cells(self, rng: np.random.Generator, low: float, high: float) -> Ints:
        """Indices of the cells in interphase, each repeated ``low`` to ``high`` times the antibody's ``count``."""
        cells = np.flatnonzero(self.field.phase == INTERPHASE)
        count = rng.uniform(low, high, len(cells)) * self.staining.count
        return np.repeat(cells, np.maximum(np.rint(count), min(low, 1)).astype(int))

    def scatter(self, rng: np.random.Generator, cell: Ints, low: float, high: float, power: float = 1) -> Points:
        """Random points in the given cells, between two depths; a higher ``power`` puts more of them near ``low``."""
        angle = rng.uniform(0, 2 * np.pi, len(cell))
        return self.field.place(cell, angle, low + (high - low) * rng.random(len(cell)) ** power)

    def beside(self, rng: np.random.Generator, cell: Ints, low: float, high: float, width: float) -> Points:
        """Random points in the given cells, on the side of the nucleus where the organising centre is."""
        angle = self.field.pole[cell] + rng.normal(0, width, len(cell))
        return self.field.place(cell, angle, rng.uniform(low, high, len(cell)))

    def organising_centre(self, cell: Ints) -> Points:
        """Positions of the organising centres of the given cells, (N, 2) in pixels."""
        return self.field.place(cell, self.field.pole[cell], np.full(len(cell), 0.1))

    def sizes(self, rng: np.random.Generator, count: int, radius: float, spread: float) -> Floats:
        """Random radii around ``radius`` nominal pixels, (count,) in pixels of this field, at least half a pixel."""
        return np.maximum(rng.lognormal(np.log(radius), spread, count) * self.spot, 0.5)

    def dots(self, rng: np.random.Generator, cell: Ints, points: Points, radius: float, spread: float) -> Image:
        """Draw a disc at each point that is inside its cell."""
        own = self.field.owns(cell, points)
        return raster.discs(self.field.size, points[own], self.sizes(rng, int(own.sum()), radius, spread))

    def threads(self, cell: Ints, paths: Points, width: float, gain: float) -> Image:
        """Draw paths (k, T, 2) in their cells (k,) as threads of ``width`` nominal pixels, 0..1."""
        return raster.saturate(raster.blur(draw_paths(self.field, cell, paths), width * self.spot), gain)

    def texture(self, rng: np.random.Generator, feature: float, depth: float) -> Image:
        """Random factor around 1 that varies by ``depth`` in bumps of ``feature`` pixels at 512."""
        return raster.texture(rng, self.field.size, feature * self.unit, depth)


Layer = Callable[[Scene, np.random.Generator], Image]
"""A function that draws the protein at one location: (S, S), not negative, about 1 if diffuse, more if compact."""


def draw_staining(rng: np.random.Generator, labels: Sequence[int]) -> Staining:
    """Draw the staining of a random antibody that marks ``labels``."""
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
