"""Locations in the nucleus: labels 0 to 5."""

import numpy as np

from pipeline.simulate.raster import Image, noise, outlined, pixel_of
from pipeline.simulate.scene import COMPACT, Scene
from pipeline.simulate.stains import inside


def nucleoplasm(scene: Scene, rng: np.random.Generator) -> Image:
    """The whole nucleus but for its nucleoli."""
    return 1.15 * scene.nuclei() * (1 - 0.85 * scene.stains.nucleoli) * scene.texture(rng, 3, 0.17)


def nuclear_membrane(scene: Scene, rng: np.random.Generator) -> Image:
    """A bright thin rim, with a faint nucleus inside it."""
    rim = outlined(scene.nuclei(), 1.3 * scene.spot) ** 2
    return 1.8 * rim * scene.texture(rng, 6, 0.2) + 0.3 * scene.nuclei()


def nucleoli(scene: Scene, _rng: np.random.Generator) -> Image:
    """The few large rounded bodies that are dark in the DNA stain, with a brighter rim in some antibodies."""
    body = scene.stains.nucleoli
    hollow = 0.5 * scene.staining.style
    filled = body * (1 - hollow + hollow * outlined(body, 1.5 * scene.unit))
    return 1.5 * filled + 0.08 * scene.nuclei()


def fibrillar_center(scene: Scene, rng: np.random.Generator) -> Image:
    """Clusters of small dots inside the nucleoli."""
    cell = scene.cells(rng, 50, 90)
    points = scene.scatter(rng, cell, -1, -0.05, 0.7)
    hit = np.append(scene.stains.nucleoli.ravel(), 0)[pixel_of(points, scene.field.size)] > 0
    return COMPACT * scene.dots(rng, cell[hit], points[hit], 0.9, 0.2) + 0.15 * scene.stains.nucleoli


def speckles(scene: Scene, rng: np.random.Generator) -> Image:
    """Fifteen to forty irregular spots between the nucleoli."""
    rough = noise(rng, scene.field.size, 3.4 * scene.spot) + 0.4 * noise(rng, scene.field.size, 1.7 * scene.spot)
    spots = COMPACT * np.clip(1.8 * (rough - 0.9), 0, 1)
    return (spots + 0.15) * scene.nuclei() * (1 - scene.stains.nucleoli) * inside(scene.field, -1, -0.06)


def nuclear_bodies(scene: Scene, rng: np.random.Generator) -> Image:
    """Two to eight round dots a nucleus."""
    cell = scene.cells(rng, 2, 8)
    return COMPACT * scene.dots(rng, cell, scene.scatter(rng, cell, -0.9, -0.12), 1.6, 0.2) + 0.05 * scene.nuclei()
