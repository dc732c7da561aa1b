"""Locations on the cytoskeleton: labels 11 to 19."""

import numpy as np

from pipeline.simulate.cells import INTERPHASE
from pipeline.simulate.raster import Image, blur, saturate
from pipeline.simulate.scene import COMPACT, Scene
from pipeline.simulate.stains import bridges, inside, metaphase_glow, spindle, through_cell, wander


def intermediate_filaments(scene: Scene, rng: np.random.Generator) -> Image:
    """A tangled cage of curly threads around the nucleus."""
    cell = scene.cells(rng, 55, 90)
    turn = rng.uniform(0, 2 * np.pi, len(cell))
    start = rng.uniform(0.5, 0.75, (len(cell), 1)) * np.column_stack([np.cos(turn), np.sin(turn)])
    heading = turn + rng.choice([-1, 1], len(cell)) * rng.normal(1.3, 0.5, len(cell))
    paths = through_cell(scene.field, cell, wander(rng, start, heading, 1.0, 1.3))
    lines = scene.threads(cell, paths, width=0.6, gain=0.7) * (1 - 0.6 * scene.nuclei())
    return 1.3 * lines + 0.06 * scene.cytoplasm()


def actin_filaments(scene: Scene, rng: np.random.Generator) -> Image:
    """Long straight parallel stress fibres along the cell, and a line at its edge."""
    field = scene.field
    cell = scene.cells(rng, 22, 40)
    long_axis = field.outline.argmax(axis=1) * (2 * np.pi / field.outline.shape[1])
    turn = (long_axis + rng.normal(0, 0.25, len(long_axis)))[cell] + rng.normal(0, 0.06, len(cell))
    reach = field.outline[cell].max(axis=1, keepdims=True)
    along = np.column_stack([np.cos(turn), np.sin(turn)])
    across = np.column_stack([-np.sin(turn), np.cos(turn)])
    aside, ahead = rng.uniform(-0.8, 0.8, (len(cell), 1)), rng.uniform(-0.4, 0.4, (len(cell), 1))
    middle = field.centres[cell] + reach * (aside * across + ahead * along)
    half = reach * rng.uniform(0.3, 0.9, (len(cell), 1)) * along
    lines = scene.threads(cell, np.stack([middle - half, middle + half], axis=1), width=0.7, gain=0.9)
    cortex = 0.3 * inside(field, 0.95, 1) + 0.12 * scene.cytoplasm()
    return 1.8 * lines * (1 - 0.4 * scene.nuclei()) + cortex


def focal_adhesions(scene: Scene, rng: np.random.Generator) -> Image:
    """Short radial dashes, most of them at the outline."""
    cell = scene.cells(rng, 22, 45)
    angle = rng.uniform(0, 2 * np.pi, len(cell))
    edge = rng.random(len(cell)) < 0.85
    depth = np.where(edge, rng.uniform(0.92, 1.02, len(cell)), rng.uniform(0.4, 0.9, len(cell)))
    paths = wander(rng, scene.field.place(cell, angle, depth), angle + np.pi, 10 * scene.spot, 0.1)
    return COMPACT * scene.threads(cell, paths, width=0.9, gain=2)


def microtubules(scene: Scene, rng: np.random.Generator) -> Image:
    """The filaments of the red stain."""
    return 1.4 * scene.stains.red * scene.texture(rng, 2, 0.2)


def microtubule_ends(scene: Scene, rng: np.random.Generator) -> Image:
    """Short dashes where filaments end, all over the cell."""
    filaments = scene.stains.filaments
    some = np.flatnonzero(rng.random(len(filaments)) < 0.5)
    last = rng.integers(4, filaments.shape[1], len(some))
    dashes = filaments[some[:, None], last[:, None] + np.arange(-1, 1)]
    lines = scene.threads(scene.stains.filament_cell[some], dashes, width=0.7, gain=1.4)
    return COMPACT * lines * (1 - 0.8 * scene.nuclei())


def cytokinetic_bridge(scene: Scene, rng: np.random.Generator) -> Image:
    """The bundle that still joins two daughter cells."""
    return COMPACT * saturate(blur(bridges(scene.field, rng), scene.spot), 0.8)


def mitotic_spindle(scene: Scene, rng: np.random.Generator) -> Image:
    """The fibres between the poles of a dividing cell and its chromosomes."""
    fibres = saturate(blur(spindle(scene.field, rng), 0.8 * scene.spot), 0.5)
    return COMPACT * fibres + 0.15 * metaphase_glow(scene.field)


def organizing_center(scene: Scene, rng: np.random.Generator) -> Image:
    """A focus of short filaments that radiate from the organising centre."""
    cell = scene.cells(rng, 22, 34)
    heading = rng.uniform(0, 2 * np.pi, len(cell))
    paths = wander(rng, scene.organising_centre(cell), heading, 12 * scene.spot, 0.5)
    return COMPACT * scene.threads(cell, paths, width=0.9, gain=0.7)


def centrosome(scene: Scene, rng: np.random.Generator) -> Image:
    """One dot or two close together, at the organising centre."""
    cells = np.flatnonzero(scene.field.phase == INTERPHASE)
    cell = np.repeat(cells, rng.integers(1, 3, len(cells)))
    points = scene.organising_centre(cell) + rng.normal(0, 2.0 * scene.unit, (len(cell), 2))
    return 1.7 * COMPACT * scene.dots(rng, cell, points, 1.5, 0.1)
