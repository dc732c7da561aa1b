"""Draw the protein at each of the 28 locations. ``LOCATIONS`` lists the functions in label order."""

import numpy as np

from pipeline.simulation.cells import INTERPHASE
from pipeline.simulation.raster import Image, blur, discs, noise, outlined, pixel_of, saturate, splat, spread, trace
from pipeline.simulation.scene import COMPACT, Layer, Scene
from pipeline.simulation.stains import bridges, inside, metaphase_glow, reticulate, spindle, through_cell, wander


def nucleoplasm(scene: Scene, rng: np.random.Generator) -> Image:
    """The whole nucleus except its nucleoli, even or finely mottled, with some protein in the cytoplasm."""
    dark, mottled, leak = scene.staining.style
    nuclei = scene.nuclei() * (1 - (0.2 + 0.75 * dark) * scene.stains.nucleoli)
    outside: Image = 0.25 * leak**3 * scene.cytoplasm()
    return 1.15 * nuclei * scene.texture(rng, 1.5 + 2.5 * dark, 0.05 + 0.45 * mottled) + outside


def nuclear_membrane(scene: Scene, rng: np.random.Generator) -> Image:
    """A thin bright rim, with a fainter nucleus inside and some reticulum around it."""
    inner, around, _ = scene.staining.style
    rim = (1 - 0.6 * inner) * outlined(scene.nuclei(), 1.3 * scene.spot) ** 2
    filled = (0.15 + 0.5 * inner) * scene.nuclei() * scene.texture(rng, 3, 0.15)
    return 1.8 * rim * scene.texture(rng, 6, 0.2) + filled + 0.3 * around**2 * scene.stains.yellow


def nucleoli(scene: Scene, rng: np.random.Generator) -> Image:
    """The few large rounded bodies that are dark in the DNA stain, with a brighter rim in some antibodies."""
    style, faint, rough = scene.staining.style
    body, hollow = scene.stains.nucleoli, max(1.4 * style - 0.4, 0.0)
    filled = body * (1 - hollow + hollow * outlined(body, 1.5 * scene.unit)) * scene.texture(rng, 2, 0.4 * rough)
    drawn: Image = 1.5 * filled + 0.35 * faint**2 * scene.nuclei()
    return drawn


def fibrillar_center(scene: Scene, rng: np.random.Generator) -> Image:
    """One to many small dots inside the nucleoli, in clusters in some antibodies."""
    many, faint, body = scene.staining.style
    cell = scene.cells(rng, 8 + 50 * many, 20 + 80 * many)
    points = scene.scatter(rng, cell, -1, -0.05, 0.7)
    hit = np.append(scene.stains.nucleoli.ravel(), 0)[pixel_of(points, scene.field.size)] > 0
    dots = scene.dots(rng, cell[hit], points[hit], 1.5 - 0.6 * many, 0.25)
    around: Image = 0.4 * body**2 * scene.stains.nucleoli + 0.3 * faint**2 * scene.nuclei()
    return COMPACT * dots + around


def speckles(scene: Scene, rng: np.random.Generator) -> Image:
    """Irregular spots between the nucleoli, from a dozen large ones to a hundred fine ones."""
    coarse, faint, dense = scene.staining.style
    feature = (1.6 + 2.8 * coarse) * scene.spot
    rough = noise(rng, scene.field.size, feature) + 0.4 * noise(rng, scene.field.size, feature / 2)
    spots = COMPACT * np.clip(1.8 * (rough - (1.4 - 0.9 * dense)), 0, 1)
    nuclei = scene.nuclei() * (1 - scene.stains.nucleoli) * inside(scene.field, -1, -0.06)
    return (spots + 0.1 + 0.7 * faint**2) * nuclei


def nuclear_bodies(scene: Scene, rng: np.random.Generator) -> Image:
    """One to a dozen round dots per nucleus, in a nucleus that is not always dark."""
    many, large, faint = scene.staining.style
    cell = scene.cells(rng, 1 + 2 * many, 4 + 8 * many)
    dots = scene.dots(rng, cell, scene.scatter(rng, cell, -0.95, -0.12), 1.1 + 0.9 * large, 0.25)
    return COMPACT * dots + 0.4 * faint**2 * scene.nuclei()


def endoplasmic_reticulum(scene: Scene, rng: np.random.Generator) -> Image:
    """A mesh that is dense around the nucleus and fades outwards, with its envelope; the yellow stain marks it too."""
    steep, meshed, rim = scene.staining.style
    fade = np.exp(-(0.8 + 2 * steep) * np.clip(scene.field.depth, 0, 2)) * scene.cytoplasm()
    mesh = 1 - meshed + 2 * meshed * reticulate(scene.field, rng)
    own: Image = fade * mesh + 0.4 * rim * outlined(scene.nuclei(), 1.2 * scene.spot)
    return 0.7 * scene.stains.yellow * inside(scene.field, 0, 1) + own


def golgi(scene: Scene, rng: np.random.Generator) -> Image:
    """Short stacked threads and blobs beside the nucleus or over it: compact, or spread around it."""
    wide, blobs, faint = scene.staining.style
    cell = scene.cells(rng, 8, 30)
    points = scene.beside(rng, cell, -0.25 * blobs, 0.15 + 0.3 * wide, 0.2 + 1.2 * wide**2)
    tangent = scene.field.pole[cell] + np.pi / 2 + rng.normal(0, 0.7, len(cell))
    ribbon = scene.threads(
        cell, wander(rng, points, tangent, (4 + 9 * wide) * scene.spot, 1.0), width=0.7 + 0.5 * faint, gain=2
    )
    spots = scene.dots(rng, cell, points, 1.2 + 0.6 * blobs, 0.35)
    return COMPACT * ((1 - blobs) * ribbon + blobs * spots) + 0.2 * faint**2 * scene.cytoplasm()


def peroxisomes(scene: Scene, rng: np.random.Generator) -> Image:
    """Very many small dots of even size in the whole cytoplasm, densest around the nucleus."""
    cell = scene.cells(rng, 110, 170)
    return COMPACT * scene.dots(rng, cell, scene.scatter(rng, cell, 0.03, 0.9, 1.4), 0.75, 0.1)


def endosomes(scene: Scene, rng: np.random.Generator) -> Image:
    """Small dots of uneven size, scattered over the whole cell."""
    cell = scene.cells(rng, 30, 60)
    return COMPACT * scene.dots(rng, cell, scene.scatter(rng, cell, 0.02, 0.97, 0.8), 0.95, 0.35)


def lysosomes(scene: Scene, rng: np.random.Generator) -> Image:
    """Larger dots, dense beside the nucleus and sparse elsewhere."""
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
    """Worm-like threads or short grains, densest around the nucleus and, in some antibodies, on one side of it."""
    length, outer, thick = scene.staining.style
    cell = scene.cells(rng, 130 - 70 * length, 240 - 120 * length)
    one_side = rng.random(len(cell)) < 0.7 * (1 - thick)
    turn = np.where(
        one_side, scene.field.pole[cell] + rng.normal(0, 0.7, len(cell)), rng.uniform(0, 2 * np.pi, len(cell))
    )
    depth = 0.04 + (0.5 + 0.4 * outer) * rng.random(len(cell)) ** 1.6
    start = scene.field.place(cell, turn, depth)
    heading = turn + rng.choice([0, np.pi / 2], len(cell)) + rng.normal(0, 0.6, len(cell))
    paths = wander(rng, start, heading, (2.5 + 22 * length**2) * scene.unit, 1.2 - 0.6 * length)
    lines = scene.threads(cell, paths, width=0.4 + 0.6 * thick, gain=1.5) * scene.texture(rng, 6, 0.3)
    return 1.5 * lines * scene.cytoplasm()


def aggresome(scene: Scene, rng: np.random.Generator) -> Image:
    """One bright blob beside the nucleus of most cells."""
    cell = np.flatnonzero((scene.field.phase == INTERPHASE) & (rng.random(len(scene.field.phase)) < 0.75))
    blobs = scene.dots(rng, cell, scene.beside(rng, cell, 0.12, 0.3, 0.3), 4.8, 0.25)
    return 0.75 * COMPACT * blobs * scene.texture(rng, 2.5, 0.3)


def cytosol(scene: Scene, rng: np.random.Generator) -> Image:
    """The cell, even or granular, with a darker nucleus, dimmer towards the edge where the cell is thin."""
    nuclear, thin, granular = scene.staining.style
    thickness = np.clip(1.15 - (0.2 + 0.8 * thin) * scene.field.depth, 0.15, 1.1)
    filled: Image = (scene.cytoplasm() + 0.5 * nuclear * scene.nuclei()) * thickness
    return filled * scene.texture(rng, 1.2 + 2 * nuclear, 0.05 + 0.5 * granular) * scene.texture(rng, 20, 0.15)


def cytoplasmic_bodies(scene: Scene, rng: np.random.Generator) -> Image:
    """A few round dots of the same size."""
    cell = scene.cells(rng, 3, 9)
    return COMPACT * scene.dots(rng, cell, scene.scatter(rng, cell, 0.08, 0.85), 2.0, 0.15)


def rods_and_rings(scene: Scene, rng: np.random.Generator) -> Image:
    """A few slightly curved rods and up to two rings per cell."""
    rod, ring = scene.cells(rng, 2, 5), scene.cells(rng, 0, 2)
    heading = rng.uniform(0, 2 * np.pi, len(rod))
    paths = wander(rng, scene.scatter(rng, rod, 0.1, 0.7), heading, 12 * scene.spot, 0.3)
    points = scene.scatter(rng, ring, 0.1, 0.6)
    rings = discs(scene.field.size, points, scene.sizes(rng, len(ring), 3.0, 0.15), thickness=1.5 * scene.spot)
    return COMPACT * np.maximum(scene.threads(rod, paths, width=0.8, gain=2), rings)


def intermediate_filaments(scene: Scene, rng: np.random.Generator) -> Image:
    """A tangled cage of curly threads around the nucleus, in some antibodies over a filled cell."""
    dense, wide, filled = scene.staining.style
    cell = scene.cells(rng, 45 + 30 * dense, 70 + 90 * dense)
    turn = rng.uniform(0, 2 * np.pi, len(cell))
    start = rng.uniform(0.5, 0.7 + 0.25 * wide**2, (len(cell), 1)) * np.column_stack([np.cos(turn), np.sin(turn)])
    heading = turn + rng.choice([-1, 1], len(cell)) * rng.normal(1.3, 0.5, len(cell))
    paths = through_cell(scene.field, cell, wander(rng, start, heading, 1.0, 1.3))
    lines = scene.threads(cell, paths, width=0.6, gain=0.7) * (1 - 0.6 * scene.nuclei())
    return 1.3 * lines + (0.06 + 0.4 * filled**2) * scene.cytoplasm()


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
    """Short dashes at the ends of filaments, in the whole cell."""
    filaments = scene.stains.filaments
    some = np.flatnonzero(rng.random(len(filaments)) < 0.5)
    last = rng.integers(4, filaments.shape[1], len(some))
    dashes = filaments[some[:, None], last[:, None] + np.arange(-1, 1)]
    lines = scene.threads(scene.stains.filament_cell[some], dashes, width=0.7, gain=1.4)
    return COMPACT * lines * (1 - 0.8 * scene.nuclei())


def cytokinetic_bridge(scene: Scene, rng: np.random.Generator) -> Image:
    """The bundle of microtubules that connects two daughter cells."""
    return COMPACT * saturate(blur(bridges(scene.field, rng), scene.spot), 0.8)


def mitotic_spindle(scene: Scene, rng: np.random.Generator) -> Image:
    """The fibres between the poles and the chromosomes of a dividing cell."""
    fibres = saturate(blur(spindle(scene.field, rng), 0.8 * scene.spot), 0.5)
    return COMPACT * fibres + 0.15 * metaphase_glow(scene.field)


def organizing_center(scene: Scene, rng: np.random.Generator) -> Image:
    """Short filaments that radiate from the organising centre."""
    cell = scene.cells(rng, 22, 34)
    heading = rng.uniform(0, 2 * np.pi, len(cell))
    paths = wander(rng, scene.organising_centre(cell), heading, 12 * scene.spot, 0.5)
    return COMPACT * scene.threads(cell, paths, width=0.9, gain=0.7)


def centrosome(scene: Scene, rng: np.random.Generator) -> Image:
    """One dot, or two close together, at the organising centre."""
    cells = np.flatnonzero(scene.field.phase == INTERPHASE)
    cell = np.repeat(cells, rng.integers(1, 3, len(cells)))
    points = scene.organising_centre(cell) + rng.normal(0, 2.0 * scene.unit, (len(cell), 2))
    return 1.7 * COMPACT * scene.dots(rng, cell, points, 1.5, 0.1)


def plasma_membrane(scene: Scene, rng: np.random.Generator) -> Image:
    """An outline, sharp or broad, even or in patches, over a fainter cell, with hairs or folds in some antibodies."""
    hairy, broad, faint = scene.staining.style
    field = scene.field
    smallest, largest = spread(field.owner, 1.2 * scene.spot)
    rim = blur((smallest < largest).astype(np.float32), (0.4 + 1.6 * broad) * scene.unit)
    edge = (0.3 + 0.8 * broad) * np.exp(-12 * np.clip(1 - field.depth, 0, 1)) * scene.cytoplasm()
    uneven = scene.texture(rng, 8 + 20 * broad, 0.3 + 0.6 * faint) * scene.texture(rng, 2, 0.5 * hairy)
    filled: Image = (0.08 + 0.6 * faint) * (scene.cytoplasm() + 0.4 * scene.nuclei()) * scene.texture(rng, 1.5, 0.4)
    lines: Image = ((1.6 - 0.8 * broad) * rim + edge) * uneven + filled
    if hairy > 0.7:
        cell = scene.cells(rng, 5, 25)
        angle = rng.uniform(0, 2 * np.pi, len(cell))
        start = field.place(cell, angle, rng.uniform(0.6, 1, len(cell)))
        along = angle + np.pi / 2 + rng.normal(0, 0.5, len(cell))
        folds = scene.threads(cell, wander(rng, start, along, 16 * scene.unit, 1.0), width=0.8, gain=1.5)
        return lines + 0.9 * folds
    if hairy > 0.35:
        return lines
    cell = scene.cells(rng, 60, 160)
    angle = rng.uniform(0, 2 * np.pi, len(cell))
    hairs = wander(rng, field.place(cell, angle, np.full(len(cell), 0.95)), angle, 18 * scene.unit, 0.4)
    _, points, length = trace(hairs)
    return lines + saturate(blur(splat(field.size, points, scene.unit * length), 0.6 * scene.unit), 1.3)


def cell_junctions(scene: Scene, rng: np.random.Generator) -> Image:
    """Lines where cells touch: continuous, interrupted or dotted."""
    broken, faint, partial = scene.staining.style
    field = scene.field
    background = field.owner == len(field.centres)
    number = np.where(background, 0, field.owner + 1).astype(np.uint8)
    _, largest = spread(number, 1.9 * scene.spot)
    smallest, _ = spread(np.where(background, 255, number).astype(np.uint8), 1.9 * scene.spot)
    touching = blur(((smallest < largest) & (smallest < 255)).astype(np.float32), 0.5 * scene.unit)
    lines = COMPACT * 0.7 * touching * scene.texture(rng, 3 + 9 * faint, 0.3 + broken)
    # Some borders have none.
    lines *= np.clip(1 + partial * (1 + 2 * noise(rng, field.size, 30 * scene.unit)), 0.05, 1)
    return lines + 0.4 * faint**2 * inside(field, -1, 1)


LOCATIONS: tuple[Layer, ...] = (
    nucleoplasm,
    nuclear_membrane,
    nucleoli,
    fibrillar_center,
    speckles,
    nuclear_bodies,
    endoplasmic_reticulum,
    golgi,
    peroxisomes,
    endosomes,
    lysosomes,
    intermediate_filaments,
    actin_filaments,
    focal_adhesions,
    microtubules,
    microtubule_ends,
    cytokinetic_bridge,
    mitotic_spindle,
    organizing_center,
    centrosome,
    lipid_droplets,
    plasma_membrane,
    cell_junctions,
    mitochondria,
    aggresome,
    cytosol,
    cytoplasmic_bodies,
    rods_and_rings,
)
