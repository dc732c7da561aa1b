"""Locations where the cell ends: labels 21 and 22."""

import numpy as np

from pipeline.simulate.raster import Image, blur, saturate, splat, spread, trace
from pipeline.simulate.scene import COMPACT, Scene
from pipeline.simulate.stains import wander


def plasma_membrane(scene: Scene, rng: np.random.Generator) -> Image:
    """A bright outline, with fine hairs outside it in some antibodies."""
    field = scene.field
    smallest, largest = spread(field.owner, 1.2 * scene.spot)
    rim = blur((smallest < largest).astype(np.float32), 0.6 * scene.unit)
    cell = scene.cells(rng, 60, 120)
    angle = rng.uniform(0, 2 * np.pi, len(cell))
    hairs = wander(rng, field.place(cell, angle, np.full(len(cell), 0.95)), angle, 18 * scene.unit, 0.4)
    _, points, length = trace(hairs)
    lines = saturate(blur(splat(field.size, points, scene.unit * length), 0.6 * scene.unit), 1.3)
    hairy = float(scene.staining.style < 0.5)
    faint = 0.15 * scene.cytoplasm() + 0.04 * scene.nuclei()
    return 1.4 * rim * scene.texture(rng, 18, 0.35) + hairy * lines + faint


def cell_junctions(scene: Scene, rng: np.random.Generator) -> Image:
    """Interrupted lines where two cells touch."""
    field = scene.field
    background = field.owner == len(field.centres)
    number = np.where(background, 0, field.owner + 1).astype(np.uint8)
    _, largest = spread(number, 1.9 * scene.spot)
    smallest, _ = spread(np.where(background, 255, number).astype(np.uint8), 1.9 * scene.spot)
    touching = blur(((smallest < largest) & (smallest < 255)).astype(np.float32), 0.5 * scene.unit)
    return COMPACT * 0.7 * touching * scene.texture(rng, 12, 0.8)
