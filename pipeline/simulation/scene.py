"""The input for drawing a location: cells, reference stains, and how the antibody stains."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.core.labels import LABELS
from pipeline.simulation import raster
from pipeline.simulation.cells import INTERPHASE, METAPHASE, CellLine, Culture, Field, Ints
from pipeline.simulation.raster import Floats, Image, Points
from pipeline.simulation.stains import Preparation, Stains, draw_paths, draw_preparation, inside

CELL_LINES = (
    # name, nucleus, reach, elongation, corners, ruffles, lobes
    CellLine("U-2 OS", 30, 3.0, 0.25, (4, 7), 0.015, 0.2),
    CellLine("A-431", 28, 2.3, 0.1, (5, 8), 0.02, 0.25),
    CellLine("U-251 MG", 30, 2.9, 0.5, (4, 6), 0.01, 0.3),
    CellLine("HeLa", 28, 2.6, 0.3, (4, 7), 0.015, 0.15),
    CellLine("MCF7", 27, 2.2, 0.1, (5, 8), 0.025, 0.15),
    CellLine("SiHa", 28, 2.6, 0.45, (4, 6), 0.02, 0.15),
    CellLine("RH-30", 26, 2.6, 0.65, (3, 5), 0.015, 0.1),
    CellLine("HEK 293", 26, 1.9, 0.35, (3, 6), 0.02, 0.15),
    CellLine("REH", 28, 1.5, 0.05, (5, 8), 0.02, 0.3),
)
EPITHELIAL = ("A-431", "MCF7")
"""Cell lines whose cells grow in contact."""
JUNCTIONS = LABELS.index("Cell junctions")
COMPACT = 2.6
"""Brightness of dots and threads relative to diffuse staining, because they are smaller than the lens resolves."""


@dataclass(frozen=True)
class Staining:
    """How an antibody stains; the same in all of its fields."""

    strength: dict[int, float]
    """Brightness of each label; the maximum is 1."""
    variation: float
    """Variation of the brightness between cells, as the standard deviation of its logarithm."""
    independent: float
    """The same of each label on its own: some cells show one label, some another."""
    expressing: float
    """Share of the cells that contain the protein."""
    haze: tuple[float, float]
    """Off-target brightness of the nuclei and of the cytoplasm."""
    specks: float
    """Brightness of off-target dots in cells."""
    grain: float
    """Contrast of the granular texture of diffuse staining, 0..1."""
    grain_size: float
    """Grain size of this texture, in nominal pixels."""
    spot: float
    """Factor for the size of spots and the width of threads."""
    count: float
    """Factor for the number of spots and threads."""
    style: tuple[float, float, float]
    """Select the appearance of locations that have several, 0..1."""


@dataclass(frozen=True)
class Exposure:
    """How the microscope takes the pictures of an antibody's fields, for each of the four channels."""

    gain: tuple[float, ...]
    """Brightness, around 1."""
    background: tuple[float, ...]
    """Brightness of empty places, as a share of white; a negative one makes weak light black."""
    photons: tuple[float, ...]
    """Number of photons of a white pixel; few give a grainy picture."""
    defocus: tuple[float, ...]
    """Blur in addition to the microscope's own, in pixels at 512."""
    misplaced: float
    """Share of cells that are above or below the focal plane."""
    debris: float
    """Mean number of specks in the field."""
    fibres: float
    """Mean number of fibres of dirt in the field."""
    glare: float
    """Share of the light that spreads over the surroundings, from above and below the focal plane."""
    vignette: float
    """Decrease of the illumination towards the border."""


@dataclass(frozen=True)
class Antibody:
    """Everything that the fields of an antibody have in common."""

    culture: Culture
    preparation: Preparation
    staining: Staining
    exposure: Exposure


@dataclass(frozen=True)
class Scene:
    """A field of view without the protein."""

    field: Field
    stains: Stains
    staining: Staining

    @property
    def unit(self) -> float:
        """Pixels of this field per nominal pixel."""
        return self.field.scale

    @property
    def spot(self) -> float:
        """Pixels of this field per nominal pixel, for the size of this antibody's spots and threads."""
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
        """Random factor around 1 that varies by ``depth`` in bumps of ``feature`` nominal pixels."""
        return raster.texture(rng, self.field.size, feature * self.unit, depth)


Layer = Callable[[Scene, np.random.Generator], Image]
"""A function that draws the protein at one location: (S, S), not negative, about 1 if diffuse, more if compact."""


def draw_antibody(rng: np.random.Generator, labels: Sequence[int]) -> Antibody:
    """Draw a random antibody that marks ``labels``.

    The ranges are wide on purpose: a network that has seen every density, size, staining and exposure takes a real
    field for one more variation (Tobin et al., "Domain Randomization", IROS 2017).
    """
    return Antibody(
        culture=_draw_culture(rng, labels),
        preparation=draw_preparation(rng),
        staining=_draw_staining(rng, labels),
        exposure=_draw_exposure(rng),
    )


def _draw_culture(rng: np.random.Generator, labels: Sequence[int]) -> Culture:
    lines = [line for line in CELL_LINES if JUNCTIONS not in labels or line.name in EPITHELIAL]
    line = lines[rng.integers(len(lines))]
    line = replace(
        line,
        reach=line.reach * rng.uniform(0.8, 1.15),
        elongation=line.elongation * rng.uniform(0.5, 1.3),
        ruffles=line.ruffles * rng.uniform(0.3, 1.6),
    )
    density = np.exp(rng.uniform(np.log(0.15), np.log(2.0)))
    if rng.random() < 0.25:  # confluent: the cells spread until they touch on all sides
        wider = rng.uniform(1.2, 1.6)
        line = replace(line, reach=line.reach * wider)
        density = max(density, 1) * wider**2
    return Culture(
        line=line,
        magnification=float(np.clip(rng.lognormal(np.log(0.8), 0.32), 0.38, 1.5)),
        density=float(max(density, 1.0) if JUNCTIONS in labels else density),
        spacing=rng.uniform(1.6, 3.0),
        uneven=rng.uniform(0.06, 0.4),
        clumped=rng.uniform(0, 1) ** 2,
        rounded=min(rng.exponential(0.08), 0.9),
        blebs=min(rng.exponential(0.08), 0.8),
        processes=rng.uniform(0, 0.8) if rng.random() < 0.25 else 0.0,
        vacuoles=rng.exponential(6.0) if rng.random() < 0.4 else 0.0,
    )


def _draw_staining(rng: np.random.Generator, labels: Sequence[int]) -> Staining:
    haze = rng.exponential(0.16, 2).clip(0, 0.8)
    strength = np.exp(rng.uniform(np.log(0.2), 0, len(labels)))
    return Staining(
        strength={label: float(share) for label, share in zip(labels, strength / strength.max(), strict=True)},
        variation=rng.uniform(0.1, 0.6),
        independent=rng.uniform(0, 0.4),
        expressing=rng.uniform(0.05, 0.9) if rng.random() < 0.3 else 1.0,
        haze=(float(haze[0]), float(haze[1])),
        specks=rng.uniform(0.02, 0.15) if rng.random() < 0.3 else 0.0,
        grain=rng.uniform(0.05, 0.7),
        grain_size=rng.uniform(1.0, 4.0),
        spot=rng.uniform(0.7, 1.4),
        count=rng.lognormal(0, 0.35),
        style=(rng.random(), rng.random(), rng.random()),
    )


def _draw_exposure(rng: np.random.Generator) -> Exposure:
    faint = rng.uniform(0.08, 0.5) if rng.random() < 0.15 else 1.0
    common = rng.exponential(0.25)
    return Exposure(
        gain=tuple(float(gain) for gain in faint * np.exp(rng.normal(0, 0.5, 4))),
        background=tuple(
            float(level) for level in (rng.normal(-0.005, 0.01, 4) + rng.exponential(0.006, 4)).clip(-0.03, 0.06)
        ),
        photons=tuple(
            float(count) for count in np.exp(rng.uniform(np.log([8, 40, 12, 10]), np.log([100, 250, 150, 150])))
        ),
        defocus=tuple(float(sigma) for sigma in common + rng.exponential(0.3, 4)),
        misplaced=rng.uniform(0, 0.5) if rng.random() < 0.35 else 0.0,
        debris=rng.exponential(6.0) if rng.random() < 0.5 else 0.0,
        fibres=rng.exponential(1.0) if rng.random() < 0.2 else 0.0,
        glare=rng.exponential(0.05),
        vignette=rng.uniform(0.03, 0.4),
    )
