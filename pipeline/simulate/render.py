"""One entry of the competition as an image, and where its labels show in it."""

import numpy as np
import numpy.typing as npt

from pipeline.labels import LABELS
from pipeline.params import Sample
from pipeline.simulate.antibodies import draw_staining
from pipeline.simulate.camera import LENS_BLUR, photograph, shifted
from pipeline.simulate.cells import grow
from pipeline.simulate.competition import Entry
from pipeline.simulate.locations import LOCATIONS
from pipeline.simulate.raster import Image, Pixels
from pipeline.simulate.scene import Scene
from pipeline.simulate.stains import inside, stain

BRIDGE, SPINDLE = LABELS.index("Cytokinetic bridge"), LABELS.index("Mitotic spindle")
LEVEL = (0.36, 0.78, 1.04, 1.14)
"""White share of a stain's peak in a training image, per channel."""
MASK_LEVEL = 0.35
"""A label's mask holds the pixels above this share of its brightest one."""

CHARACTER, LAYOUT, PROTEIN, EXPOSURE = range(4)


def render(entry: Entry, settings: Sample) -> Pixels:
    """Take the picture of an entry: (S, S, 4) uint8 in the order green, blue, red, yellow."""
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


def masks(entry: Entry, settings: Sample) -> npt.NDArray[np.bool_]:
    """Tell where each label shows in the entry's image: (28, S, S), all false for labels it does not have."""
    scene = _scene(entry, settings)
    shown = np.zeros((len(LABELS), settings.size, settings.size), dtype=np.bool_)
    for label in entry.labels:
        layer = shifted(_layer(scene, entry, settings, label), _shift(entry, settings))
        shown[label] = layer > MASK_LEVEL * layer.max()
    return shown


def _scene(entry: Entry, settings: Sample) -> Scene:
    staining = draw_staining(_stream(entry, settings, CHARACTER), entry.labels)
    rng = _stream(entry, settings, LAYOUT, entry.field)
    # Cells divide in any field now and then, whether or not the protein marks it.
    field = grow(
        rng,
        staining.line,
        settings.size,
        metaphases=int(SPINDLE in entry.labels) or int(rng.random() < 0.08),
        divisions=int(BRIDGE in entry.labels) or int(rng.random() < 0.08),
    )
    return Scene(field, stain(field, rng), staining)


def _layer(scene: Scene, entry: Entry, settings: Sample, label: int) -> Image:
    return LOCATIONS[label](scene, _stream(entry, settings, PROTEIN, entry.field, label))


def _green(scene: Scene, entry: Entry, settings: Sample) -> Image:
    """Add up the labels, each at the antibody's strength, and what it stains off target."""
    rng = _stream(entry, settings, PROTEIN, entry.field, len(LABELS))
    staining, field = scene.staining, scene.field
    layers = [staining.strength[label] * _layer(scene, entry, settings, label) for label in entry.labels]
    expression = field.of_cells(rng.lognormal(0, staining.variation, len(field.centres)), background=1)
    green: Image = np.sum(layers, axis=0) * expression
    green += staining.haze[0] * inside(field, -1, 0) + staining.haze[1] * inside(field, 0, 1)
    return green * scene.texture(rng, staining.grain_size, staining.grain)


def _shift(entry: Entry, settings: Sample) -> tuple[int, int]:
    if not entry.take:
        return 0, 0
    reach = max(settings.size // 64, 1)
    down, right = _stream(entry, settings, EXPOSURE, entry.field, entry.take, 1).integers(-reach, reach + 1, 2)
    return int(down), int(right)


def _stream(entry: Entry, settings: Sample, *key: int) -> np.random.Generator:
    """The randomness of one aspect of an entry: the same in whatever order, and by whatever process, it is drawn."""
    return np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(entry.antibody, *key)))
