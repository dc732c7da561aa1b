"""The three reference stains of a field: nuclei (blue), microtubules (red), endoplasmic reticulum (yellow)."""

from dataclasses import dataclass

import numpy as np

from pipeline.simulation.cells import INTERPHASE, METAPHASE, OUTSIDE, Field, Ints
from pipeline.simulation.raster import Floats, Image, Points, blur, discs, noise, saturate, splat, texture, trace

FILAMENTS = 260
"""Number of microtubules of a cell of average size."""
JOINTS = 15
"""Number of points of a path."""
SQUASH = 6
"""Higher values make filaments turn closer to the outline."""


@dataclass(frozen=True)
class Preparation:
    """How the reference stains of an antibody's fields came out."""

    chromatin: float
    """Contrast of the texture of the DNA."""
    nucleoli: float
    """Mean number of nucleoli."""
    nucleolus_size: float
    """Factor for their radius."""
    nucleolus_dark: float
    """Share of the DNA stain that is missing in nucleoli."""
    filaments: float
    """Factor for the number of microtubules."""
    perinuclear: float
    """Additional brightness of microtubules around the nucleus."""
    cortex: float
    """Additional brightness of microtubules at the outline."""
    red_nucleus: float
    """Share of the microtubule stain that is missing over nuclei."""
    red_diffuse: float
    """Brightness of tubulin outside filaments."""
    bleed: float
    """Share of the red stain in the yellow channel."""
    fade: float
    """Decrease of the reticulum towards the outline, as the exponent of the depth."""
    yellow_nucleus: float
    """Brightness of the yellow channel over nuclei."""
    grain: float
    """Contrast of the granules of the red and yellow stains."""


def draw_preparation(rng: np.random.Generator) -> Preparation:
    """Draw how the reference stains of a random antibody's fields come out."""
    return Preparation(
        chromatin=rng.uniform(0.05, 0.3),
        nucleoli=rng.uniform(1, 5),
        nucleolus_size=rng.uniform(0.7, 1.4),
        nucleolus_dark=rng.uniform(0.1, 0.95),
        filaments=rng.lognormal(0, 0.45),
        perinuclear=rng.exponential(0.8),
        cortex=rng.exponential(0.4) * float(rng.random() < 0.6),
        red_nucleus=rng.uniform(0.2, 0.97),
        red_diffuse=rng.exponential(0.1),
        bleed=rng.uniform(0.1, 0.9) * float(rng.random() < 0.6),
        fade=rng.uniform(0.3, 2.6),
        yellow_nucleus=rng.uniform(0.02, 0.3),
        grain=rng.uniform(0.05, 0.7),
    )


@dataclass(frozen=True)
class Stains:
    """The reference stains, each (S, S) with a maximum around 1, and the structures they show."""

    blue: Image
    red: Image
    yellow: Image
    nucleoli: Image
    """(S, S), 1 inside nucleoli and 0 elsewhere."""
    filaments: Points
    """(k, T, 2) in pixels: the microtubules of cells that are not in metaphase, from start to end."""
    filament_cell: Ints
    """(k,) index of the cell of each filament."""


def stain(field: Field, preparation: Preparation, rng: np.random.Generator) -> Stains:
    """Draw the reference stains of a field."""
    nucleoli = _nucleoli(field, preparation, rng)
    filaments, cell = _microtubules(field, preparation, rng)
    red = _red(field, preparation, filaments, cell, rng)
    return Stains(
        blue=_dna(field, preparation, nucleoli, rng),
        red=red,
        yellow=_reticulum(field, preparation, rng) + np.float32(preparation.bleed) * red,
        nucleoli=nucleoli,
        filaments=filaments,
        filament_cell=cell,
    )


def inside(field: Field, low: float, high: float, *, phase: int | None = None) -> Image:
    """Mask of the pixels between two depths, optionally only in cells of one phase: (S, S), 0 or 1."""
    mask = (field.depth >= low) & (field.depth < high)
    if phase is not None:
        mask &= field.of_cells(field.phase == phase) > 0
    return mask.astype(np.float32)


def wander(rng: np.random.Generator, start: Points, heading: Floats, length: float, bend: float) -> Points:
    """Curved paths of a given ``length`` from ``start`` (k, 2) with a slowly changing direction: (k, JOINTS, 2).

    ``bend`` is the standard deviation, in radians, of the change of direction along the whole path.
    """
    along = np.linspace(0, 1, JOINTS)
    waves = np.stack([along, np.sin(2 * np.pi * along) / 2, np.sin(4 * np.pi * along) / 3])
    angle = heading[:, None] + (rng.normal(0, bend, (len(start), len(waves))) @ waves)
    path = np.cumsum(np.stack([np.cos(angle), np.sin(angle)], axis=-1), axis=1) * (length / JOINTS)
    return np.asarray(start[:, None, :] + path)


def through_cell(field: Field, cell: Ints, paths: Points) -> Points:
    """Map paths (k, T, 2) in the unit disk to cells (k,); paths that reach the edge follow the cell's outline.

    The nucleus corresponds to the inner half of the disk's radius.
    """
    k, steps, _ = paths.shape
    flat = paths.reshape(-1, 2)
    radius = np.hypot(flat[:, 0], flat[:, 1])
    depth = 2 * radius / (1 + radius**SQUASH) ** (1 / SQUASH) - 1
    return field.place(np.repeat(cell, steps), np.arctan2(flat[:, 1], flat[:, 0]), depth).reshape(k, steps, 2)


def draw_paths(field: Field, cell: Ints, paths: Points) -> Image:
    """Number of paths (k, T, 2) that cross each pixel, inside their own cells (k,) only.

    Lines are one pixel at 512 wide, which is less than one pixel of a smaller image; therefore they are scaled.
    """
    path, points, length = trace(paths)
    own = field.owns(cell[path], points)
    return splat(field.size, points[own], field.scale * length[own])


def spindle(field: Field, rng: np.random.Generator) -> Image:
    """Draw the spindles of cells in metaphase: filaments from two poles to the chromosomes between them."""
    cells = np.flatnonzero(field.phase == METAPHASE)
    per_pole = 32
    cell = np.repeat(cells, 2 * per_pole)
    side = np.tile(np.repeat([-1.0, 1.0], per_pole), len(cells))
    along = np.linspace(0.06, 1.0, JOINTS)
    reach = field.nucleus[cell].max(axis=1)
    width = rng.uniform(-0.75, 0.75, len(cell)) * reach
    # From the pole, fibres fan out towards the plate and curve outwards.
    forward = side[:, None] * reach[:, None] * (1.05 - along)
    across = width[:, None] * np.sin(along * np.pi / 2)
    axis = field.pole[cell][:, None]
    x = forward * np.cos(axis) - across * np.sin(axis)
    y = forward * np.sin(axis) + across * np.cos(axis)
    return draw_paths(field, cell, field.centres[cell][:, None, :] + np.stack([x, y], axis=-1))


def bridges(field: Field, rng: np.random.Generator) -> Image:
    """Draw the bundles of microtubules that connect daughter cells."""
    image = np.zeros((field.size, field.size), dtype=np.float32)
    for first, second in field.bridges:
        start, end = field.centres[first], field.centres[second]
        along = np.linspace(0.3, 0.7, JOINTS)
        span = end - start
        normal = np.array([-span[1], span[0]]) / np.hypot(*span)
        # The bundle is narrow in the middle and wide where it enters the cells.
        splay = (1.2 + 60 * np.abs(along - 0.5) ** 1.6) * field.scale
        bow = rng.normal(0, 3) * field.scale * np.cos(np.pi * (along - 0.5) / 0.4)
        offset = rng.uniform(-1, 1, (14, 1)) * splay + bow
        paths = start + along[:, None] * span + offset[..., None] * normal
        _, points, length = trace(paths)
        image += splat(field.size, points, field.scale * length)
    return image


def metaphase_glow(field: Field) -> Image:
    """Fill the cells in metaphase, which have no separate nucleus: (S, S), 1 inside, fading towards the edge."""
    glow: Image = inside(field, -1, 1, phase=METAPHASE) * np.clip(1.4 * (1 - field.depth), 0, 1)
    return glow


def reticulate(field: Field, rng: np.random.Generator) -> Image:
    """Random mesh over the whole field: bright threads around dark holes, 0..1."""
    fine = np.abs(noise(rng, field.size, 3.6 * field.scale)) + 0.5 * np.abs(noise(rng, field.size, 2.2 * field.scale))
    return 0.8 * np.clip(1.05 - 0.55 * fine, 0.1, 1) * texture(rng, field.size, 18 * field.scale, 0.3)


def _nucleoli(field: Field, preparation: Preparation, rng: np.random.Generator) -> Image:
    cells = np.flatnonzero(field.phase == INTERPHASE)
    cell = np.repeat(cells, 1 + rng.poisson(preparation.nucleoli - 1, len(cells)))
    points = field.place(cell, rng.uniform(0, 2 * np.pi, len(cell)), -rng.uniform(0.3, 0.95, len(cell)))
    radii = preparation.nucleolus_size * rng.uniform(0.11, 0.24, len(cell)) * field.nucleus[cell].mean(axis=1)
    soft = blur(discs(field.size, points, radii), 1.8 * field.scale)
    rough = soft + 0.16 * noise(rng, field.size, 5 * field.scale)
    # Noise makes the bodies irregular; it must not add specks far from them.
    return ((rough > 0.45) & (soft > 0.2) & (field.depth < -0.08)).astype(np.float32)


def _dna(field: Field, preparation: Preparation, nucleoli: Image, rng: np.random.Generator) -> Image:
    coarse, fine = noise(rng, field.size, 5 * field.scale), noise(rng, field.size, 2 * field.scale)
    chromatin = 1 + preparation.chromatin * (coarse + 0.8 * fine)
    condensed = np.where(field.phase == INTERPHASE, rng.lognormal(0, 0.25, len(field.phase)), 1.7)
    chromatin *= 1 - preparation.nucleolus_dark * blur(nucleoli, field.scale)
    dna: Image = inside(field, -1, 0) * np.maximum(chromatin, 0.1) * field.of_cells(0.62 * condensed)
    return dna


def _microtubules(field: Field, preparation: Preparation, rng: np.random.Generator) -> tuple[Points, Ints]:
    """Filaments that start at the organising centre, or anywhere around the nucleus, and run outwards."""
    cells = np.flatnonzero(field.phase != METAPHASE)
    reach = field.outline[cells].mean(axis=1) / field.scale
    count = np.clip(preparation.filaments * min(field.magnification, 1) * FILAMENTS * reach / 80, 30, 600).astype(int)
    cell = np.repeat(cells, count)
    free = rng.random(len(cell)) < 0.6
    turn = np.where(free, rng.uniform(0, 2 * np.pi, len(cell)), field.pole[cell])
    distance = np.where(free, rng.uniform(0.3, 0.9, len(cell)), 0.55)
    start = distance[:, None] * np.column_stack([np.cos(turn), np.sin(turn)])
    start += rng.normal(0, 0.02, start.shape)
    heading = np.where(free, turn + rng.normal(0, 1.0, len(cell)), rng.uniform(0, 2 * np.pi, len(cell)))
    return through_cell(field, cell, wander(rng, start, heading, 0.8, 0.55)), cell


def _red(field: Field, preparation: Preparation, filaments: Points, cell: Ints, rng: np.random.Generator) -> Image:
    lines = draw_paths(field, cell, filaments) * (1 - preparation.red_nucleus * inside(field, -1, 0))
    lines *= texture(rng, field.size, 3 * field.scale, 0.4)
    # At a low magnification fewer filaments are drawn, so that each stands for several.
    lines /= np.float32(min(field.magnification, 1))
    dividing = spindle(field, rng) + bridges(field, rng)
    bundled = saturate(0.34 * blur(lines, 0.45 * field.scale) + 0.33 * blur(dividing, 0.6 * field.scale), 1)
    depth = np.clip(field.depth, 0, 1)
    bundled *= 1 + preparation.perinuclear * np.exp(-4 * depth) + preparation.cortex * np.exp(-10 * (1 - depth))
    brightness = field.of_cells(rng.lognormal(0, 0.3, len(field.centres)), background=1)
    diffuse = inside(field, 0, 1) * (1 - 0.7 * depth) + (1 - preparation.red_nucleus) * inside(field, -1, 0)
    diffuse *= preparation.red_diffuse * texture(rng, field.size, 1.5 * field.scale, preparation.grain)
    red: Image = brightness * (bundled + diffuse) + 0.15 * metaphase_glow(field)
    return red


def _reticulum(field: Field, preparation: Preparation, rng: np.random.Generator) -> Image:
    """A mesh that is brightest around the nucleus and fades towards the outline."""
    mesh = reticulate(field, rng) * texture(rng, field.size, 1.5 * field.scale, preparation.grain)
    fade = inside(field, 0, 0.97) * np.asarray(np.exp(-preparation.fade * np.clip(field.depth, 0, OUTSIDE)))
    nucleus = inside(field, -1, 0) * (0.6 + 0.5 * mesh)
    inner = 0.12 * inside(field, -0.08, 0.06) + preparation.yellow_nucleus * nucleus
    yellow: Image = (fade * mesh + inner) * field.of_cells(rng.lognormal(0, 0.35, len(field.centres)))
    return yellow
