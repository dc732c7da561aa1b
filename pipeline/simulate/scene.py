"""What a location is drawn from: the cells, their reference stains and the antibody's character."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.simulate import raster
from pipeline.simulate.antibodies import Staining
from pipeline.simulate.cells import INTERPHASE, METAPHASE, Field, Ints
from pipeline.simulate.raster import Floats, Image, Points
from pipeline.simulate.stains import Stains, draw_paths, inside

COMPACT = 2.6
"""Brightness of dots and threads over that of diffuse staining: they are thinner than the lens resolves."""


@dataclass(frozen=True)
class Scene:
    """One field of view before the protein is added."""

    field: Field
    stains: Stains
    staining: Staining

    @property
    def unit(self) -> float:
        """Pixels of this field per pixel at 512."""
        return self.field.scale

    @property
    def spot(self) -> float:
        """Size of this antibody's spots and threads: pixels of this field per nominal pixel at 512."""
        return self.field.scale * self.staining.spot

    def nuclei(self) -> Image:
        """Mark the nuclei of cells not in division, (S, S), 0 or 1."""
        return inside(self.field, -1, 0) - inside(self.field, -1, 0, phase=METAPHASE)

    def cytoplasm(self) -> Image:
        """Mark the cells without their nuclei, (S, S), 0 or 1."""
        return inside(self.field, 0, 1)

    def cells(self, rng: np.random.Generator, low: float, high: float) -> Ints:
        """List the cells in interphase, each between ``low`` and ``high`` times, as the antibody has it."""
        cells = np.flatnonzero(self.field.phase == INTERPHASE)
        count = rng.uniform(low, high, len(cells)) * self.staining.count
        return np.repeat(cells, np.maximum(np.rint(count), min(low, 1)).astype(int))

    def scatter(self, rng: np.random.Generator, cell: Ints, low: float, high: float, power: float = 1) -> Points:
        """Place a point in each of the cells, between two depths; a higher ``power`` crowds them at ``low``."""
        angle = rng.uniform(0, 2 * np.pi, len(cell))
        return self.field.place(cell, angle, low + (high - low) * rng.random(len(cell)) ** power)

    def beside(self, rng: np.random.Generator, cell: Ints, low: float, high: float, width: float) -> Points:
        """Place a point in each of the cells, near the side of the nucleus where the organising centre lies."""
        angle = self.field.pole[cell] + rng.normal(0, width, len(cell))
        return self.field.place(cell, angle, rng.uniform(low, high, len(cell)))

    def organising_centre(self, cell: Ints) -> Points:
        """Locate the organising centre of each of the cells, (N, 2) pixels."""
        return self.field.place(cell, self.field.pole[cell], np.full(len(cell), 0.1))

    def sizes(self, rng: np.random.Generator, count: int, radius: float, spread: float) -> Floats:
        """Draw radii around ``radius`` nominal pixels, (count,) pixels of this field, at least half a pixel."""
        return np.maximum(rng.lognormal(np.log(radius), spread, count) * self.spot, 0.5)

    def dots(self, rng: np.random.Generator, cell: Ints, points: Points, radius: float, spread: float) -> Image:
        """Draw a disc at each point that lies in its cell."""
        own = self.field.owns(cell, points)
        return raster.discs(self.field.size, points[own], self.sizes(rng, int(own.sum()), radius, spread))

    def threads(self, cell: Ints, paths: Points, width: float, gain: float) -> Image:
        """Draw paths (k, T, 2) in their cells (k,) as threads ``width`` nominal pixels wide, 0..1."""
        return raster.saturate(raster.blur(draw_paths(self.field, cell, paths), width * self.spot), gain)

    def texture(self, rng: np.random.Generator, feature: float, depth: float) -> Image:
        """Draw a factor around 1 that varies by ``depth``, with bumps ``feature`` pixels (at 512) wide."""
        return raster.texture(rng, self.field.size, feature * self.unit, depth)


Layer = Callable[[Scene, np.random.Generator], Image]
"""Draws one location's protein: (S, S), at least 0, about 1 where it is diffuse and more where it is compact."""
