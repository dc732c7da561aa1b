"""Locations in the cytoplasm and its organelles: labels 6 to 10, 20 and 23 to 27."""

import numpy as np

from pipeline.simulate.cells import INTERPHASE
from pipeline.simulate.raster import Image, discs
from pipeline.simulate.scene import COMPACT, Scene
from pipeline.simulate.stains import inside, reticulate, wander


def endoplasmic_reticulum(scene: Scene, rng: np.random.Generator) -> Image:
    """The mesh of the yellow stain, on which it lies, with a texture of its own."""
    return scene.stains.yellow * (1 + reticulate(scene.field, rng) * inside(scene.field, 0, 1))


def golgi(scene: Scene, rng: np.random.Generator) -> Image:
    """A ribbon of short stacked threads on one side of the nucleus."""
    cell = scene.cells(rng, 14, 26)
    tangent = scene.field.pole[cell] + np.pi / 2 + rng.normal(0, 0.7, len(cell))
    paths = wander(rng, scene.beside(rng, cell, 0.03, 0.3, 0.35), tangent, 9 * scene.spot, 1.0)
    return COMPACT * scene.threads(cell, paths, width=1.1, gain=2)


def peroxisomes(scene: Scene, rng: np.random.Generator) -> Image:
    """Very many small even dots throughout the cytoplasm, densest around the nucleus."""
    cell = scene.cells(rng, 110, 170)
    return COMPACT * scene.dots(rng, cell, scene.scatter(rng, cell, 0.03, 0.9, 1.4), 0.75, 0.1)


def endosomes(scene: Scene, rng: np.random.Generator) -> Image:
    """Small dots of uneven size, scattered over the whole cell."""
    cell = scene.cells(rng, 30, 60)
    return COMPACT * scene.dots(rng, cell, scene.scatter(rng, cell, 0.02, 0.97, 0.8), 0.95, 0.35)


def lysosomes(scene: Scene, rng: np.random.Generator) -> Image:
    """Larger dots, crowded beside the nucleus and thinning out."""
    near, far = scene.cells(rng, 8, 16), scene.cells(rng, 14, 28)
    crowd = scene.dots(rng, near, scene.beside(rng, near, 0.04, 0.4, 0.5), 1.8, 0.25)
    return COMPACT * np.maximum(crowd, scene.dots(rng, far, scene.scatter(rng, far, 0.05, 0.97, 1.2), 1.8, 0.25))


def lipid_droplets(scene: Scene, rng: np.random.Generator) -> Image:
    """Small rings, in clusters around the nucleus."""
    cell = scene.cells(rng, 8, 22)
    points = scene.scatter(rng, cell, 0.08, 0.7, 1.5)
    points = points[scene.field.owns(cell, points)]
    radii = scene.sizes(rng, len(points), 2.6, 0.3)
    return COMPACT * discs(scene.field.size, points, radii, thickness=1.2 * scene.unit)


def mitochondria(scene: Scene, rng: np.random.Generator) -> Image:
    """Short worm-like threads, densest around the nucleus."""
    cell = scene.cells(rng, 50, 90)
    start = scene.scatter(rng, cell, 0.1, 0.8, 1.4)
    outward = start - scene.field.centres[cell]
    heading = np.arctan2(outward[:, 1], outward[:, 0]) + rng.choice([0, np.pi / 2], len(cell))
    paths = wander(rng, start, heading + rng.normal(0, 0.6, len(cell)), 12 * scene.unit, 1.2)
    return 1.3 * scene.threads(cell, paths, width=0.7, gain=1.2) * scene.cytoplasm()


def aggresome(scene: Scene, rng: np.random.Generator) -> Image:
    """One bright blob beside the nucleus of most cells."""
    cell = np.flatnonzero((scene.field.phase == INTERPHASE) & (rng.random(len(scene.field.phase)) < 0.75))
    blobs = scene.dots(rng, cell, scene.beside(rng, cell, 0.12, 0.3, 0.3), 4.8, 0.25)
    return 0.75 * COMPACT * blobs * scene.texture(rng, 2.5, 0.3)


def cytosol(scene: Scene, rng: np.random.Generator) -> Image:
    """The cell without its nucleus, filled, thinner towards the edge."""
    thickness = np.clip(1.15 - 0.75 * scene.field.depth, 0.2, 1.1)
    filled: Image = (scene.cytoplasm() + 0.12 * scene.nuclei()) * thickness
    return filled * scene.texture(rng, 2.5, 0.06) * scene.texture(rng, 20, 0.12)


def cytoplasmic_bodies(scene: Scene, rng: np.random.Generator) -> Image:
    """A few round dots of one size."""
    cell = scene.cells(rng, 3, 9)
    return COMPACT * scene.dots(rng, cell, scene.scatter(rng, cell, 0.08, 0.85), 2.0, 0.15)


def rods_and_rings(scene: Scene, rng: np.random.Generator) -> Image:
    """A few slightly curved rods and a ring or two a cell."""
    rod, ring = scene.cells(rng, 2, 5), scene.cells(rng, 0, 2)
    heading = rng.uniform(0, 2 * np.pi, len(rod))
    paths = wander(rng, scene.scatter(rng, rod, 0.1, 0.7), heading, 12 * scene.spot, 0.3)
    points = scene.scatter(rng, ring, 0.1, 0.6)
    rings = discs(scene.field.size, points, scene.sizes(rng, len(ring), 3.0, 0.15), thickness=1.5 * scene.spot)
    return COMPACT * np.maximum(scene.threads(rod, paths, width=0.8, gain=2), rings)
