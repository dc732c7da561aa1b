"""What classical image analysis measures of a protein: on nucleus and cytoplasm, at the rim, against the stains."""

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.labels import CHANNELS

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

STAINS = ("blue", "red", "yellow")

FIELD = 512
"""Side of the image, in pixels, for which the lengths below are meant; in others they are in proportion."""
SMOOTH = 1.5
"""Standard deviation of the blur before a mask is made."""
RIM = 8
"""How far inside the cell's outline its rim reaches."""
NEAR = 12
"""How far from the nucleus cytoplasm counts as near."""
GRAINS = (1, 2, 4, 8)
"""Standard deviations of the finer of two blurs, whose difference is the texture at that grain."""
COARSER = 1.6
"""Of the coarser blur over the finer; the difference is then nearly a Laplacian (Marr and Hildreth, 1980)."""
WHITE = 3 * 255
"""What the brightest point of the three stains together is taken for, so that exposure moves no outline."""
FEWEST = 50
"""Pixels without which a region holds nothing to measure: the whole cell takes its place."""

REGIONS = ("cell", "cytoplasm", "nucleus")
PARTS = ("nucleus", "cytoplasm", "rim", "inside", "near")
FEATURES = (
    "nucleus_to_cytoplasm",
    *(f"share_{part}" for part in PARTS),
    *(f"spread_{region}" for region in REGIONS),
    *(f"{stain}_{region}" for region in REGIONS for stain in STAINS),
    *(f"grain_{grain}_{region}" for grain in GRAINS for region in REGIONS[1:]),
)
"""What is measured, in this order; see ``measure``."""


def measure(image: npt.NDArray[np.uint8]) -> Floats:
    """The features of one image (4, S, S): ``FEATURES``, float32.

    Cells are where the logarithm of the three stains together is above Otsu's threshold, nuclei where within cells
    the blue one is; the rest is cytoplasm. Of the protein (green), ``nucleus_to_cytoplasm`` is the logarithm of the
    ratio of two means, ``share_`` the mean of a part over that of the cells, ``spread_`` the standard deviation over
    the mean, ``grain_`` the same after a band-pass, and a stain's name Pearson's correlation with it. None is of the
    brightness itself: test images may be exposed otherwise.

    Sources: Boland and Murphy, "A neural network classifier capable of recognizing the patterns of all major
    subcellular structures in fluorescence microscope images of HeLa cells", Bioinformatics 2001 (for features of this
    kind); Otsu, "A threshold selection method from gray-level histograms", 1979.
    """
    pixel = image.shape[-1] / FIELD
    green, *others = image.astype(np.float32)
    stains = dict(zip(CHANNELS[1:], others, strict=True))
    cell, nucleus = _masks(stains, pixel)
    cytoplasm = cell & ~nucleus
    nucleus, cytoplasm = (part if part.sum() >= FEWEST * pixel**2 else cell for part in (nucleus, cytoplasm))
    rim = cell & (_distance_to(~cell) <= RIM * pixel)
    parts = (nucleus, cytoplasm, rim, cytoplasm & ~rim, cytoplasm & (_distance_to(nucleus) <= NEAR * pixel))

    regions = dict(zip(REGIONS, (cell, cytoplasm, nucleus), strict=True))
    mean = {name: _mean(green, region) + 1 for name, region in regions.items()}  # black is no divisor
    bands = [_blur(green, grain * pixel) - _blur(green, COARSER * grain * pixel) for grain in GRAINS]
    found = [
        np.log(mean["nucleus"] / mean["cytoplasm"]),
        *(_mean(green, part) / mean["cell"] for part in parts),
        *(green[region].std() / mean[name] for name, region in regions.items()),
        *(_correlation(green[region], stains[stain][region]) for region in regions.values() for stain in STAINS),
        *(band[regions[name]].std() / mean[name] for band in bands for name in REGIONS[1:]),
    ]
    return np.array(found, np.float32)


def _masks(stains: dict[str, Floats], pixel: float) -> tuple[Mask, Mask]:
    """Cells, which are everything where nothing stands out, and the nuclei within them."""
    smooth = {stain: _blur(values, SMOOTH * pixel) for stain, values in stains.items()}
    together = np.sum(list(smooth.values()), axis=0)
    cell = _above_otsu(np.log1p(together * (WHITE / max(float(together.max()), 1e-6))))
    if not cell.any():
        cell = ~cell
    nucleus = np.zeros_like(cell)
    nucleus[cell] = _above_otsu(smooth["blue"][cell])
    return cell, nucleus


def _above_otsu(values: Floats) -> Mask:
    """Where values of any shape, at 256 levels, are in the upper of Otsu's two classes."""
    levels = (values * (255 / max(float(values.max()), 1e-6))).astype(np.uint8).reshape(1, -1)
    _, upper = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return upper.reshape(values.shape) > 0


def _distance_to(mask: Mask) -> Floats:
    """From each pixel to the nearest one of the mask; from none to nothing it is far."""
    distances = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distances, np.float32)


def _blur(values: Floats, sigma: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)


def _mean(values: Floats, mask: Mask) -> float:
    return float(values[mask].mean()) if mask.any() else 0.0


def _correlation(a: Floats, b: Floats) -> float:
    """Pearson's; 0 where either is constant."""
    x, y = (values - values.mean(dtype=np.float64) for values in (a, b))  # a mean in float32 may be a digit off
    scale = float(np.sqrt(x @ x) * np.sqrt(y @ y))
    return float(x @ y) / scale if scale > 0 else 0.0
