"""Render an entry of the competition as an image, as a microscope would show it, and the masks of its labels."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from pipeline.core.labels import LABELS
from pipeline.core.params import Simulation
from pipeline.simulation.cells import grow
from pipeline.simulation.competition import Entry
from pipeline.simulation.locations import LOCATIONS
from pipeline.simulation.raster import Image, Pixels, blur, enlarge
from pipeline.simulation.scene import Scene, draw_staining
from pipeline.simulation.stains import inside, stain

BRIDGE, SPINDLE = LABELS.index("Cytokinetic bridge"), LABELS.index("Mitotic spindle")
LEVEL = (0.36, 0.78, 1.04, 1.14)
"""Peak brightness of each channel in a training image; 1 is white."""
MASK_LEVEL = 0.35
"""Threshold of a label's mask, relative to the label's brightest pixel."""

LENS_BLUR = 0.65
"""Standard deviation of the microscope's own blur, in pixels at 512."""
PHOTONS = 140.0
"""Number of photons of a white pixel."""
NORMAL = ndtri((np.arange(65_536) + 0.5) / 65_536).astype(np.float32)
"""Quantiles of the normal distribution. Drawing from them takes half the time of drawing normal numbers."""
CHARACTER, LAYOUT, PROTEIN, EXPOSURE = range(4)
"""Random streams of an entry: the antibody's staining, the field's cells, the protein's structures, the picture."""


def render(entry: Entry, settings: Simulation) -> Pixels:
    """Render the image of an entry: (S, S, 4) uint8 in the order green, blue, red, yellow."""
    scene = _scene(entry, settings)
    rng = _stream(entry, settings, EXPOSURE, entry.field, entry.take)
    stains = (_green(scene, entry, settings), scene.stains.blue, scene.stains.red, scene.stains.yellow)
    exposure = settings.test_exposure if entry.split == "test" else 1.0
    if entry.take:
        exposure *= rng.uniform(0.85, 1.15)
    gain = exposure * np.array(LEVEL) * scene.staining.gain
    light = [channel * np.float32(share) for channel, share in zip(stains, gain, strict=True)]
    defocus = scene.unit * float(np.hypot(LENS_BLUR, scene.staining.defocus))
    return photograph(light, rng, defocus=defocus, shift=_shift(entry, settings))


def masks(entry: Entry, settings: Simulation) -> npt.NDArray[np.bool_]:
    """Masks of the labels in the image of an entry: (28, S, S) bool, all false for labels it does not have."""
    scene = _scene(entry, settings)
    shown = np.zeros((len(LABELS), settings.size, settings.size), dtype=np.bool_)
    for label in entry.labels:
        layer = shifted(_layer(scene, entry, settings, label), _shift(entry, settings))
        shown[label] = layer > MASK_LEVEL * layer.max()
    return shown


def photograph(light: Sequence[Image], rng: np.random.Generator, *, defocus: float, shift: tuple[int, int]) -> Pixels:
    """Simulate the picture of a field: shift, blur, uneven illumination, noise and quantisation.

    Args:
        light: brightness of C channels, each (S, S); 1 is white.
        rng: generator for illumination and noise.
        defocus: standard deviation of the blur in pixels.
        shift: translation in pixels, down and right.

    Returns:
        (S, S, C) uint8.
    """
    lamp = _illumination(rng, len(light[0]))
    return np.stack([_expose(blur(shifted(channel, shift), defocus) * lamp, rng) for channel in light], axis=-1)


def shifted(image: Image, shift: tuple[int, int]) -> Image:
    """Translate (S, S) by whole pixels, down and right; the border is filled by mirroring."""
    size = image.shape[0]
    border = max(abs(shift[0]), abs(shift[1]))
    if border == 0:
        return image
    padded = np.pad(image, border, mode="reflect")
    top, left = border - shift[0], border - shift[1]
    return padded[top : top + size, left : left + size]


def _scene(entry: Entry, settings: Simulation) -> Scene:
    staining = draw_staining(_stream(entry, settings, CHARACTER), entry.labels)
    rng = _stream(entry, settings, LAYOUT, entry.field)
    # Fields contain dividing cells with a small probability, even if no label marks them.
    field = grow(
        rng,
        staining.line,
        settings.size,
        metaphases=int(SPINDLE in entry.labels) or int(rng.random() < 0.08),
        divisions=int(BRIDGE in entry.labels) or int(rng.random() < 0.08),
    )
    return Scene(field, stain(field, rng), staining)


def _layer(scene: Scene, entry: Entry, settings: Simulation, label: int) -> Image:
    return LOCATIONS[label](scene, _stream(entry, settings, PROTEIN, entry.field, label))


def _green(scene: Scene, entry: Entry, settings: Simulation) -> Image:
    """The protein channel: the sum of the labels, weighted by the antibody's strength, and off-target staining."""
    rng = _stream(entry, settings, PROTEIN, entry.field, len(LABELS))
    staining, field = scene.staining, scene.field
    layers = [staining.strength[label] * _layer(scene, entry, settings, label) for label in entry.labels]
    expression = field.of_cells(rng.lognormal(0, staining.variation, len(field.centres)), background=1)
    green: Image = np.sum(layers, axis=0) * expression
    green += staining.haze[0] * inside(field, -1, 0) + staining.haze[1] * inside(field, 0, 1)
    return green * scene.texture(rng, staining.grain_size, staining.grain)


def _shift(entry: Entry, settings: Simulation) -> tuple[int, int]:
    if not entry.take:
        return 0, 0
    reach = max(settings.size // 64, 1)
    down, right = _stream(entry, settings, EXPOSURE, entry.field, entry.take, 1).integers(-reach, reach + 1, 2)
    return int(down), int(right)


def _stream(entry: Entry, settings: Simulation, *key: int) -> np.random.Generator:
    """Random generator for one aspect of an entry; it does not depend on the order of drawing or on the process."""
    return np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(entry.antibody, *key)))


def _illumination(rng: np.random.Generator, size: int) -> Image:
    """Uneven illumination, (S, S): brightest near the middle, with a smooth fall-off."""
    x, y = rng.uniform(-0.4, 0.4, 2)
    grid = np.linspace(-1, 1, 17)
    fall = rng.uniform(0.05, 0.25) * ((grid[:, None] - y) ** 2 + (grid - x) ** 2)
    return enlarge((1.08 - fall).astype(np.float32), size)


def _expose(light: Image, rng: np.random.Generator) -> Pixels:
    """Add shot noise and convert to uint8; the Poisson distribution of photons is approximated by a normal one."""
    photons = np.maximum(light, 0) * np.float32(PHOTONS)
    photons += np.sqrt(photons) * NORMAL[rng.integers(0, len(NORMAL), light.shape, dtype=np.uint16)]
    pixels: Pixels = np.clip(np.rint(photons * np.float32(255 / PHOTONS)), 0, 255).astype(np.uint8)
    return pixels
