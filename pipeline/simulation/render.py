"""Render an entry of the competition as an image, as a microscope would show it, and the masks of its labels."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pipeline.core.labels import LABELS
from pipeline.core.params import Simulation
from pipeline.simulation.cells import INTERPHASE, REFERENCE_SIZE, grow
from pipeline.simulation.competition import Entry
from pipeline.simulation.locations import LOCATIONS
from pipeline.simulation.raster import Image, Pixels, blur, discs, enlarge, reduced, saturate, splat, trace
from pipeline.simulation.scene import COMPACT, Antibody, Exposure, Scene, draw_antibody
from pipeline.simulation.stains import inside, stain, wander

BRIDGE, SPINDLE = LABELS.index("Cytokinetic bridge"), LABELS.index("Mitotic spindle")
LEVEL = (0.28, 0.58, 0.74, 0.72)
"""Typical brightness of each channel in a training image; 1 is white."""
MASK_LEVEL = 0.35
"""Threshold of a label's mask, relative to the label's brightest pixel."""

LENS_BLUR = 0.65
"""Standard deviation of the microscope's own blur, in pixels at 512."""
MISPLACED_BLUR = 3.5
"""Standard deviation of the blur of a cell that is out of focus, in nominal pixels."""
GLARE_BLUR = 9.0
"""Standard deviation of the blur of light from above and below the focal plane, in pixels at 512."""
UNSTAINED = 0.06
"""Brightness of cells that do not contain the protein."""
CHARACTER, LAYOUT, PROTEIN, EXPOSURE = range(4)
"""Random streams of an entry: the antibody's staining, the field's cells, the protein's structures, the picture."""

Masks = npt.NDArray[np.bool_]


def render(entry: Entry, settings: Simulation) -> Pixels:
    """Render the image of an entry: (S, S, 4) uint8 in the order green, blue, red, yellow."""
    antibody, scene = _scene(entry, settings)
    return _picture(antibody, scene, _layers(scene, entry, settings), entry, settings)


def render_with_masks(entry: Entry, settings: Simulation) -> tuple[Pixels, Masks]:
    """Render the image of an entry together with its masks, in less time than ``render`` and ``masks`` take."""
    antibody, scene = _scene(entry, settings)
    layers = _layers(scene, entry, settings)
    return _picture(antibody, scene, layers, entry, settings), _masks(scene, layers, entry, settings)


def masks(entry: Entry, settings: Simulation) -> Masks:
    """Masks of the labels in the image of an entry: (28, S, S) bool, all false for labels it does not have."""
    _, scene = _scene(entry, settings)
    return _masks(scene, _layers(scene, entry, settings), entry, settings)


def _picture(antibody: Antibody, scene: Scene, layers: dict[int, Image], entry: Entry, settings: Simulation) -> Pixels:
    rng = _stream(entry, settings, EXPOSURE, entry.field, entry.take)
    stains = (_green(scene, layers, entry, settings), scene.stains.blue, scene.stains.red, scene.stains.yellow)
    brightness = settings.test_exposure if entry.split == "test" else 1.0
    if entry.take:
        brightness *= rng.uniform(0.85, 1.15)
    exposure = antibody.exposure
    gain = brightness * np.array(LEVEL) * exposure.gain * rng.lognormal(0, 0.1, len(LEVEL))
    light = [channel * np.float32(share) for channel, share in zip(stains, gain, strict=True)]
    # The dirt and the focus belong to the field, so that a near-duplicate shows the same ones.
    layout = _stream(entry, settings, LAYOUT, entry.field, 1)
    light = _misplace(scene, light, exposure.misplaced, layout)
    light = _hollow(scene, light, antibody.culture.vacuoles, layout)
    for dirt, typical in (
        (_debris(scene, exposure.debris, layout), 0.25),
        (_fibres(scene, exposure.fibres, layout), 0.4),
    ):
        light = [channel + dirt * np.float32(layout.exponential(typical)) for channel in light]
    light = [channel + np.float32(exposure.glare) * _glare(channel) for channel in light]
    return photograph(light, exposure, rng, shift=_shift(entry, settings))


def photograph(
    light: Sequence[Image], exposure: Exposure, rng: np.random.Generator, *, shift: tuple[int, int]
) -> Pixels:
    """Simulate the picture of a field: shift, blur, uneven illumination, noise and quantisation.

    Args:
        light: brightness of C channels, each (S, S); 1 is white.
        exposure: the microscope's settings.
        rng: generator for illumination and noise.
        shift: translation in pixels, down and right.

    Returns:
        (S, S, C) uint8.
    """
    size = len(light[0])
    lamp = _illumination(rng, size, exposure.vignette)
    sigma = np.hypot(LENS_BLUR, exposure.defocus) * size / REFERENCE_SIZE
    channels = [
        _expose(blur(shifted(channel, shift), float(width)) * lamp + np.float32(background), photons, rng)
        for channel, width, background, photons in zip(light, sigma, exposure.background, exposure.photons, strict=True)
    ]
    return np.stack(channels, axis=-1)


def shifted(image: Image, shift: tuple[int, int]) -> Image:
    """Translate (S, S) by whole pixels, down and right; the border is filled by mirroring."""
    size = image.shape[0]
    border = max(abs(shift[0]), abs(shift[1]))
    if border == 0:
        return image
    padded = np.pad(image, border, mode="reflect")
    top, left = border - shift[0], border - shift[1]
    return padded[top : top + size, left : left + size]


def _scene(entry: Entry, settings: Simulation) -> tuple[Antibody, Scene]:
    antibody = draw_antibody(_stream(entry, settings, CHARACTER), entry.labels)
    rng = _stream(entry, settings, LAYOUT, entry.field)
    # Fields contain dividing cells with a small probability, even if no label marks them.
    field = grow(
        rng,
        replace(antibody.culture, density=antibody.culture.density * rng.uniform(0.7, 1.3)),
        settings.size,
        metaphases=int(SPINDLE in entry.labels) or int(rng.random() < 0.08),
        divisions=int(BRIDGE in entry.labels) or int(rng.random() < 0.08),
    )
    return antibody, Scene(field, stain(field, antibody.preparation, rng), antibody.staining)


def _layers(scene: Scene, entry: Entry, settings: Simulation) -> dict[int, Image]:
    """The protein at each of the entry's locations, as if all cells contained it."""
    return {
        label: LOCATIONS[label](scene, _stream(entry, settings, PROTEIN, entry.field, label)) for label in entry.labels
    }


def _masks(scene: Scene, layers: dict[int, Image], entry: Entry, settings: Simulation) -> Masks:
    contain = scene.field.of_cells(_containing(scene, entry, settings), background=1) > 0
    shown = np.zeros((len(LABELS), settings.size, settings.size), dtype=np.bool_)
    for label, layer in layers.items():
        signal = (layer > MASK_LEVEL * layer.max()) & contain
        shown[label] = shifted(signal.astype(np.float32), _shift(entry, settings)) > 0
    return shown


def _green(scene: Scene, layers: dict[int, Image], entry: Entry, settings: Simulation) -> Image:
    """The protein channel: the sum of the labels, weighted by the antibody's strength, and off-target staining."""
    rng = _stream(entry, settings, PROTEIN, entry.field, len(LABELS))
    staining, field = scene.staining, scene.field
    brightness = rng.lognormal(0, staining.variation, len(field.centres))
    brightness *= np.where(_containing(scene, entry, settings), 1, UNSTAINED)
    total = np.zeros((field.size, field.size), dtype=np.float32)
    for label, layer in layers.items():
        own = rng.lognormal(0, staining.independent, len(field.centres)).clip(0.4, 2.5)
        total += np.float32(staining.strength[label]) * layer * field.of_cells(own, background=1)
    green: Image = total * field.of_cells(brightness, background=1)
    green += staining.haze[0] * inside(field, -1, 0) + staining.haze[1] * inside(field, 0, 1)
    if staining.specks:
        cell = scene.cells(rng, 4, 25)
        green += np.float32(staining.specks * COMPACT) * scene.dots(
            rng, cell, scene.scatter(rng, cell, -0.9, 1), 0.9, 0.4
        )
    return green * scene.texture(rng, staining.grain_size, staining.grain)


def _containing(scene: Scene, entry: Entry, settings: Simulation) -> npt.NDArray[np.bool_]:
    """Which cells contain the protein, (n,): a share of them, at least one, and all dividing ones."""
    rng, field = _stream(entry, settings, PROTEIN, entry.field, len(LABELS) + 1), scene.field
    contain: npt.NDArray[np.bool_] = (rng.random(len(field.centres)) < scene.staining.expressing) | (
        field.phase != INTERPHASE
    )
    inner = np.flatnonzero(((field.centres > 0) & (field.centres < field.size)).all(axis=1))
    contain[rng.choice(inner)] = True
    return contain


def _misplace(scene: Scene, light: list[Image], share: float, rng: np.random.Generator) -> list[Image]:
    """Blur some cells, which are above or below the focal plane."""
    if not share:
        return light
    away = blur(scene.field.of_cells(rng.random(len(scene.field.centres)) < share), scene.unit)
    return [channel + away * (blur(channel, MISPLACED_BLUR * scene.unit) - channel) for channel in light]


def _debris(scene: Scene, count: float, rng: np.random.Generator) -> Image:
    """Specks of dirt and of dead cells anywhere in the field, (S, S), about 1."""
    points = rng.uniform(0, scene.field.size, (rng.poisson(count), 2))
    radii = np.minimum(rng.lognormal(np.log(1.8), 0.8, len(points)), 14) * scene.unit
    return discs(scene.field.size, points, radii) * scene.texture(rng, 3, 0.8)


def _hollow(scene: Scene, light: list[Image], count: float, rng: np.random.Generator) -> list[Image]:
    """Dark bubbles in the cytoplasm, in all channels."""
    if not count:
        return light
    cells = np.flatnonzero(scene.field.phase == INTERPHASE)
    cell = np.repeat(cells, rng.poisson(count, len(cells)))
    points = scene.scatter(rng, cell, 0.05, 0.85, 1.3)
    radii = rng.uniform(1, 3.5, len(cell)) * scene.unit
    left = 1 - np.float32(rng.uniform(0.3, 0.95)) * discs(scene.field.size, points, radii) * scene.cytoplasm()
    return [channel * left for channel in light]


def _fibres(scene: Scene, count: float, rng: np.random.Generator) -> Image:
    """Long thin fibres of dirt, (S, S), about 1."""
    number, size = rng.poisson(count), scene.field.size
    if not number:
        return np.zeros((size, size), dtype=np.float32)
    start, heading = rng.uniform(0, size, (number, 2)), rng.uniform(0, 2 * np.pi, number)
    paths = wander(rng, start, heading, rng.uniform(0.1, 0.8) * size, rng.uniform(0.05, 0.8))
    _, points, length = trace(paths)
    width = rng.uniform(0.6, 2.0) * size / REFERENCE_SIZE
    return saturate(blur(splat(size, points, length), width), 2.5 * width)


def _glare(light: Image) -> Image:
    """Blur very widely, on a coarser grid for speed."""
    size = len(light)
    coarse = reduced(light, max(size // 4, 1))
    return enlarge(blur(coarse, GLARE_BLUR * len(coarse) / REFERENCE_SIZE), size)


def _shift(entry: Entry, settings: Simulation) -> tuple[int, int]:
    if not entry.take:
        return 0, 0
    reach = max(settings.size // 64, 1)
    down, right = _stream(entry, settings, EXPOSURE, entry.field, entry.take, 1).integers(-reach, reach + 1, 2)
    return int(down), int(right)


def _stream(entry: Entry, settings: Simulation, *key: int) -> np.random.Generator:
    """Random generator for one aspect of an entry; it does not depend on the order of drawing or on the process."""
    return np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(entry.antibody, *key)))


def _illumination(rng: np.random.Generator, size: int, vignette: float) -> Image:
    """Uneven illumination, (S, S): brightest near the middle, with a smooth fall-off."""
    x, y = rng.uniform(-0.4, 0.4, 2)
    grid = np.linspace(-1, 1, 17)
    fall = vignette * ((grid[:, None] - y) ** 2 + (grid - x) ** 2)
    return enlarge(np.maximum(1.08 - fall, 0.1).astype(np.float32), size)


def _expose(light: Image, photons: float, rng: np.random.Generator) -> Pixels:
    """Add shot noise and convert to uint8."""
    counted = rng.poisson(np.maximum(light, 0) * photons)
    pixels: Pixels = np.clip(np.rint(counted * (255 / photons)), 0, 255).astype(np.uint8)
    return pixels
