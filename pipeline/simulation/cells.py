"""Geometry of a field of view: positions and shapes of its cells, and coordinates inside them.

A cell has two closed curves around one centre, the nucleus and the outline, each with a radius per direction. A
position inside a cell is (angle, depth). The depth is -1 at the centre, 0 at the nuclear envelope and 1 at the outline,
so a structure is described independently of the cell's shape.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.simulation.raster import Floats, Image, Pixels, Points, look_up, pixel_of, polar

Ints = npt.NDArray[np.intp]

DIRECTIONS = 256
"""Number of directions; a direction fits in uint8, which wraps around like an angle."""
OUTSIDE = 2.0
"""The depth of the background."""
REFERENCE_SIZE = 512
"""Image side that lengths refer to, if they are given in nominal pixels: pixels at 512 and magnification 1."""
MARGIN = 1.0
"""Maximum distance of a cell's centre outside the image, in mean radii of a cell."""
TRIALS = 14
"""Number of random positions that are tried, per cell."""
FEWEST, MOST = 3, 150
"""Limits of the number of cells in a field."""
COLONY = 7
"""Mean number of cells in a clump."""
DAUGHTERS_APART = 3.1
"""Distance of two daughter cells, in nuclear radii."""

INTERPHASE, METAPHASE, DAUGHTER = 0, 1, 2


@dataclass(frozen=True)
class CellLine:
    """The appearance of a cell line; lengths are in nominal pixels."""

    name: str
    nucleus: float
    """Mean radius of the nucleus."""
    reach: float
    """Ratio of the mean radius of a cell to that of its nucleus."""
    elongation: float
    """0 for round cells, 1 for spindle-shaped ones."""
    corners: tuple[int, int]
    """Minimum and maximum number of corners of the outline."""
    ruffles: float
    """Roughness of the outline."""
    lobes: float
    """Share of dented nuclei."""


@dataclass(frozen=True)
class Culture:
    """How the cells of an antibody's fields grow, and how large the microscope shows them."""

    line: CellLine
    magnification: float
    """Pixels at 512 per nominal pixel."""
    density: float
    """Area of all cells, if none overlapped, relative to the area of the field."""
    spacing: float
    """Minimum distance of two centres, in nuclear radii; nuclei touch below 2."""
    uneven: float
    """Variation of the cells' sizes, as the standard deviation of the logarithm."""
    clumped: float
    """Share of cells that grow in clumps."""
    rounded: float
    """Share of round cells with little cytoplasm."""
    blebs: float
    """Share of cells with round protrusions of the outline."""
    processes: float
    """Share of cells with long, thin protrusions."""
    vacuoles: float
    """Mean number of dark bubbles in the cytoplasm of a cell."""


@dataclass(frozen=True)
class Field:
    """The cells of one field of view."""

    size: int
    magnification: float
    """Pixels at 512 per nominal pixel."""
    centres: Points
    """(n, 2) in pixels."""
    nucleus: Floats
    """(n, DIRECTIONS) radius in pixels."""
    outline: Floats
    """(n, DIRECTIONS) radius in pixels."""
    phase: Ints
    """(n,) INTERPHASE, METAPHASE or DAUGHTER."""
    pole: Floats
    """(n,) direction of the organising centre, or of the spindle axis."""
    bridges: Ints
    """(m, 2) pairs of daughter cells that are still connected."""
    owner: Pixels
    """(S, S) index of the cell at each pixel; n for background."""
    depth: Image
    """(S, S) depth of each pixel in its cell."""

    @property
    def scale(self) -> float:
        """Pixels of this field per nominal pixel."""
        return self.size / REFERENCE_SIZE * self.magnification

    def of_cells(self, values: npt.ArrayLike, background: float = 0) -> Image:
        """Image (S, S) with one value per cell, from ``values`` (n,), and a value for the background."""
        return look_up(self.owner, np.append(np.asarray(values, dtype=np.float32), np.float32(background)))

    def place(self, cell: Ints, angle: Floats, depth: Floats) -> Points:
        """Convert positions inside cells to pixel coordinates, (N, 2)."""
        direction = np.floor(angle * (DIRECTIONS / (2 * np.pi)) + 0.5).astype(np.intp) % DIRECTIONS
        nucleus, outline = self.nucleus[cell, direction], self.outline[cell, direction]
        radius = np.where(depth < 0, nucleus * (1 + depth), nucleus + depth * (outline - nucleus))
        points: Points = self.centres[cell] + radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
        return points

    def owns(self, cell: Ints, points: Points) -> npt.NDArray[np.bool_]:
        """Whether each point is on a pixel of its own cell, (N,)."""
        pixel = pixel_of(points, self.size)
        own: npt.NDArray[np.bool_] = np.append(self.owner.ravel(), np.uint8(len(self.centres)))[pixel] == cell
        return own


def grow(rng: np.random.Generator, culture: Culture, size: int, *, metaphases: int, divisions: int) -> Field:
    """Create a field of (size, size) pixels that contains the given numbers of dividing cells."""
    scale = size / REFERENCE_SIZE * culture.magnification
    centres, phase, bridges = _seed(rng, culture, size / scale, metaphases, divisions)
    axis = rng.uniform(0, 2 * np.pi, len(centres))
    for first, second in bridges:
        away = centres[first] - centres[second]
        axis[first] = np.arctan2(away[1], away[0])
        axis[second] = axis[first] + np.pi
    curves = [_curves(rng, culture, int(kind), float(turn)) for kind, turn in zip(phase, axis, strict=True)]
    nucleus = np.array([curve[0] for curve in curves]) * scale
    outline = np.array([curve[1] for curve in curves]) * scale
    owner, depth = _rasterise(size, centres * scale, nucleus, outline)
    pole = np.where(phase == INTERPHASE, axis + rng.normal(np.pi / 2, 0.6, len(axis)), axis)
    return Field(size, culture.magnification, centres * scale, nucleus, outline, phase, pole, bridges, owner, depth)


def _seed(
    rng: np.random.Generator, culture: Culture, side: float, metaphases: int, divisions: int
) -> tuple[Points, Ints, Ints]:
    """Place centres in a field of ``side`` nominal pixels, at random with a minimum distance.

    Dividing cells come first, and they and one other cell are well inside the image.
    """
    line = culture.line
    radius = line.reach * line.nucleus
    low, high = -MARGIN * radius, side + MARGIN * radius
    dividing = [METAPHASE] * metaphases + [DAUGHTER] * divisions
    count = int(np.clip(culture.density * (high - low) ** 2 / (np.pi * radius**2), FEWEST, MOST)) + len(dividing)
    kinds = dividing + [INTERPHASE] * (count - len(dividing))
    trials = TRIALS * count
    colonies = rng.uniform(low, high, (max(count // COLONY, 1), 2))
    thrown = rng.uniform(low, high, (trials, 2))
    clumped = rng.random(trials) < culture.clumped
    near = colonies[rng.integers(0, len(colonies), trials)] + rng.normal(0, 0.8 * radius * np.sqrt(COLONY), (trials, 2))
    thrown[clumped] = near[clumped]
    inner = 8 * len(dividing) + 1
    thrown[:inner] = rng.uniform(0.25, 0.75, (inner, 2)) * side
    centres = np.empty((2 * count, 2))
    phase: list[int] = []
    bridges: list[tuple[int, int]] = []
    for point, turn in zip(thrown, rng.uniform(0, 2 * np.pi, trials), strict=True):
        if len(phase) - len(bridges) == len(kinds):
            break
        kind = kinds[len(phase) - len(bridges)]
        apart = DAUGHTERS_APART * line.nucleus * np.array([np.cos(turn), np.sin(turn)])
        group = np.array([point - apart / 2, point + apart / 2] if kind == DAUGHTER else [point])
        away = group[:, None] - centres[: len(phase)]
        if len(phase) and (away**2).sum(axis=-1).min() < (culture.spacing * line.nucleus) ** 2:
            continue
        if kind == DAUGHTER:
            bridges.append((len(phase), len(phase) + 1))
        centres[len(phase) : len(phase) + len(group)] = group
        phase += [kind] * len(group)
    return centres[: len(phase)].copy(), np.array(phase), np.array(bridges, dtype=np.intp).reshape(-1, 2)


def _curves(rng: np.random.Generator, culture: Culture, phase: int, axis: float) -> tuple[Floats, Floats]:
    """Draw the nucleus and the outline of one cell, each (DIRECTIONS,) radii in nominal pixels."""
    line = culture.line
    angle: Floats = np.linspace(0, 2 * np.pi, DIRECTIONS, endpoint=False)
    mean = line.nucleus * rng.lognormal(0, culture.uneven)
    if phase == METAPHASE:
        # The chromosomes form a plate perpendicular to the spindle axis, in a round cell.
        plate = _ellipse(angle - axis, 0.27 * mean, 0.85 * mean) * _rough(rng, 0.08, 3, 16)
        return plate, np.full(DIRECTIONS, 1.55 * mean) * _rough(rng, 0.02, 2, 12)
    if phase == DAUGHTER:
        nucleus = _ellipse(angle - axis, 0.6 * mean, 0.85 * mean) * _rough(rng, 0.03, 2, 5)
        outline = mean * (1.6 + 0.5 * np.cos(angle - axis)) * _rough(rng, 0.06, 2, 12)
        return nucleus, np.maximum(outline, 1.15 * nucleus)
    stretch = rng.uniform(0.02, 0.2) + 0.22 * line.elongation
    nucleus = _ellipse(angle - axis, mean * (1 + stretch), mean / (1 + stretch)) * _rough(rng, 0.03, 2, 5)
    if rng.random() < line.lobes:
        off = np.angle(np.exp(1j * (angle - axis - rng.choice([-1, 1]) * rng.normal(np.pi / 2, 0.3))))
        nucleus *= 1 - rng.uniform(0.2, 0.45) * np.exp(-((off / 0.35) ** 2))
    if rng.random() < culture.rounded:
        outline = np.full(DIRECTIONS, rng.uniform(1.2, 1.7) * mean) * _rough(rng, 0.04, 2, 12)
    else:
        outline = _outline(rng, line, angle - axis, mean)
    if rng.random() < culture.blebs:
        outline = outline + _blebs(rng, angle, mean)
    if rng.random() < culture.processes:
        outline = outline + _processes(rng, angle, mean)
    return nucleus, np.maximum(outline, 1.12 * nucleus)


def _outline(rng: np.random.Generator, line: CellLine, angle: Floats, mean: float) -> Floats:
    """A polygon with concave edges, because a cell is stretched between its points of adhesion."""
    count = int(rng.integers(line.corners[0], line.corners[1] + 1))
    turn = (np.arange(count) + rng.uniform(-0.32, 0.32, count)) * (2 * np.pi / count) + rng.uniform(0, 2 * np.pi)
    radius = line.reach * mean * rng.lognormal(0, 0.2, count) * (1 + line.elongation * np.cos(2 * turn))
    corners = radius * np.exp(1j * turn)
    along = np.linspace(0, 1, 24, endpoint=False)
    hollow = 1 - rng.uniform(0, 0.7, (count, 1)) * along * (1 - along)
    edge = ((1 - along) * corners[:, None] + along * np.roll(corners, -1)[:, None]) * hollow
    order = np.argsort(np.angle(edge), axis=None)
    bend, length = np.angle(edge).ravel()[order], np.abs(edge).ravel()[order]
    outline = np.interp(angle, bend, length, period=2 * np.pi)
    smooth = np.hanning(15) / np.hanning(15).sum()
    outline = np.convolve(np.concatenate([outline[-7:], outline, outline[:7]]), smooth, mode="valid")
    return outline * _rough(rng, line.ruffles, 8, 30)


def _blebs(rng: np.random.Generator, angle: Floats, mean: float) -> Floats:
    """Round protrusions of the outline, as lengths to add to it in each direction, (DIRECTIONS,)."""
    count = int(rng.integers(4, 16))
    off = np.angle(np.exp(1j * (angle - rng.uniform(0, 2 * np.pi, (count, 1)))))
    bumps = np.sqrt(np.clip(1 - (off / rng.uniform(0.05, 0.16, (count, 1))) ** 2, 0, None))
    return np.asarray((mean * rng.uniform(0.1, 0.45, (count, 1)) * bumps).max(axis=0))


def _processes(rng: np.random.Generator, angle: Floats, mean: float) -> Floats:
    """Long protrusions that become narrower outwards, as lengths to add to the outline, (DIRECTIONS,)."""
    count = int(rng.integers(1, 4))
    off = np.angle(np.exp(1j * (angle - rng.uniform(0, 2 * np.pi, (count, 1)))))
    spikes = np.clip(1 - np.abs(off) / rng.uniform(0.1, 0.25, (count, 1)), 0, None)
    return np.asarray((mean * rng.uniform(1.0, 5.0, (count, 1)) * spikes).max(axis=0))


def _ellipse(angle: Floats, along: float, across: float) -> Floats:
    return along * across / np.hypot(across * np.cos(angle), along * np.sin(angle))


def _rough(rng: np.random.Generator, amplitude: float, low: int, high: int) -> Floats:
    """A factor around 1 per direction: waves with ``low`` to ``high`` periods, of which longer ones are stronger."""
    waves = np.arange(low, high + 1)
    height = rng.normal(0, amplitude, len(waves)) / np.sqrt(waves - low + 1)
    spectrum = np.zeros(DIRECTIONS // 2 + 1, dtype=complex)
    spectrum[waves] = height * np.exp(1j * rng.uniform(0, 2 * np.pi, len(waves))) * (DIRECTIONS / 2)
    return np.clip(1 + np.fft.irfft(spectrum), 0.4, 1.8)


def _rasterise(size: int, centres: Points, nucleus: Floats, outline: Floats) -> tuple[Pixels, Image]:
    """Assign each pixel to the cell in which its depth is smallest, so that neighbours meet half-way."""
    owner = np.full((size, size), len(centres), dtype=np.uint8)
    depth = np.full((size, size), np.float32(OUTSIDE), dtype=np.float32)
    for cell, (x, y) in enumerate(centres):
        reach = outline[cell].max() + 1
        left, right = np.clip([int(x - reach), int(x + reach) + 2], 0, size)
        top, bottom = np.clip([int(y - reach), int(y + reach) + 2], 0, size)
        if left == right or top == bottom:
            continue
        dx, dy = np.meshgrid(
            np.arange(left, right, dtype=np.float32) - np.float32(x),
            np.arange(top, bottom, dtype=np.float32) - np.float32(y),
        )
        radius, angle = polar(dx, dy)
        direction = np.rint(angle * np.float32(DIRECTIONS / (2 * np.pi))).astype(np.uint16).astype(np.uint8)
        inner, outer = look_up(direction, nucleus[cell]), look_up(direction, outline[cell])
        here = np.where(radius < inner, radius / inner - 1, (radius - inner) / (outer - inner))
        window = (slice(top, bottom), slice(left, right))
        nearer = (here < 1) & (here < depth[window])
        owner[window][nearer] = cell
        depth[window][nearer] = here[nearer]
    return owner, depth
