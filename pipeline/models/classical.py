"""A model without a neural network: hand-crafted features of nucleus, cytoplasm and cell rim, and a random forest."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from sklearn.ensemble import ExtraTreesRegressor
from torch import Tensor, nn

from pipeline.core.labels import CHANNELS, LABELS

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

STAINS = ("blue", "red", "yellow")

FIELD = 512
"""Image side in pixels that the lengths below refer to; for other sizes, they are scaled."""
SMOOTH = 1.5
"""Standard deviation of the blur before thresholding."""
RIM = 8
"""Width of a cell's rim, inside its outline."""
NEAR = 12
"""Maximum distance from the nucleus of the part "near" of the cytoplasm."""
GRAINS = (1, 2, 4, 8)
"""Standard deviations of the finer blur of each difference of Gaussians, which measures the texture of this scale."""
COARSER = 1.6
"""Ratio of the coarser to the finer blur; the difference approximates a Laplacian (Marr and Hildreth, 1980)."""
WHITE = 3 * 255
"""The maximum of the sum of the three stains is scaled to this value, so that exposure does not change the masks."""
FEWEST = 50
"""Minimum number of pixels of a region; smaller regions are replaced by the whole cell."""

TREES = 500
"""Number of trees."""
LEAF = 2
"""Minimum number of training samples per leaf."""
LEAVES = 1024
"""Maximum number of leaves per tree, which limits weight files to 131 MB for any number of samples."""
SURE = 1 / (2 * TREES)
"""Probabilities are clipped to [SURE, 1 - SURE], which is finer than the resolution of the trees' votes."""

REGIONS = ("cell", "cytoplasm", "nucleus")
PARTS = ("nucleus", "cytoplasm", "rim", "inside", "near")
FEATURES = (
    "nucleus_to_cytoplasm",
    *(f"share_{part}" for part in PARTS),
    *(f"spread_{region}" for region in REGIONS),
    *(f"{stain}_{region}" for region in REGIONS for stain in STAINS),
    *(f"grain_{grain}_{region}" for grain in GRAINS for region in REGIONS[1:]),
)
"""Names of the features, in order; see ``extract_features``."""


class FeatureForest(nn.Module):
    """Hand-crafted features and a random forest: a model without a neural network."""

    def __init__(self, seed: int) -> None:
        """Create an empty forest; ``seed`` determines its trees."""
        super().__init__()
        self.forest = ForestHead(len(FEATURES), seed)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 4, S, S) uint8 to logits (B, 28)."""
        logits: Tensor = self.forest(self.head_features(images))
        return logits

    def head_features(self, images: Tensor) -> Tensor:
        """(B, 4, S, S) uint8 to the input of the forest, (B, F), on the device of the images; computed on the CPU."""
        found = np.stack([extract_features(image) for image in images.cpu().numpy()])
        return torch.from_numpy(found).to(images.device)

    def most_important(self, count: int = 5) -> str:
        """The ``count`` features whose splits remove most of the targets' variance, each with its share, as text."""
        order = self.forest.importance.argsort(descending=True)[:count].tolist()
        return ", ".join(f"{FEATURES[index]} {self.forest.importance[index]:.2f}" for index in order)


def extract_features(image: npt.NDArray[np.uint8]) -> Floats:
    """Hand-crafted features of one image (4, S, S) uint8: (F,) float32, in the order of ``FEATURES``.

    Cells are where the logarithm of the sum of the three stains is above Otsu's threshold, nuclei where the blue stain
    within cells is; the rest of the cells is cytoplasm. The features describe the protein (green):

    - ``nucleus_to_cytoplasm``: logarithm of the ratio of the mean intensities.
    - ``share_*``: mean intensity of a part divided by that of the cells.
    - ``spread_*``: standard deviation divided by the mean.
    - ``grain_*``: the same after a band-pass filter.
    - ``blue_*``, ``red_*``, ``yellow_*``: Pearson's correlation with the stain.

    No feature measures absolute brightness, because test images may have another exposure.

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
    mean = {name: _mean(green, region) + 1 for name, region in regions.items()}  # never zero
    bands = [_blur(green, grain * pixel) - _blur(green, COARSER * grain * pixel) for grain in GRAINS]
    found = [
        np.log(mean["nucleus"] / mean["cytoplasm"]),
        *(_mean(green, part) / mean["cell"] for part in parts),
        *(green[region].std() / mean[name] for name, region in regions.items()),
        *(_correlation(green[region], stains[stain][region]) for region in regions.values() for stain in STAINS),
        *(band[regions[name]].std() / mean[name] for band in bands for name in REGIONS[1:]),
    ]
    return np.array(found, np.float32)


class ForestHead(nn.Module):
    """Extremely randomised trees, each for all 28 labels: a leaf stores the label frequencies of its training samples.

    A split is the best of one random threshold per feature, by the remaining variance of the targets. The probability
    is the mean over trees; the head returns its logit, which has no gradient.

    Sources: Geurts, Ernst and Wehenkel, "Extremely randomized trees", Machine Learning 2006; Kocev, Vens, Struyf and
    Džeroski, "Ensembles of multi-objective decision trees", ECML 2007 (one tree for all labels).
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    share: Tensor
    root: Tensor
    importance: Tensor

    def __init__(self, features: int, seed: int) -> None:
        """Create an empty forest for a number of features; ``seed`` determines the trees that ``fit`` grows."""
        super().__init__()
        self.seed = seed
        # The nodes of all trees, concatenated; a leaf is its own child.
        self.register_buffer("feature", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(0))
        self.register_buffer("left", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("right", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("share", torch.zeros(0, len(LABELS)))
        self.register_buffer("root", torch.zeros(0, dtype=torch.int32))  # of each tree
        self.register_buffer(
            "importance", torch.zeros(features)
        )  # share of the variance that a feature's splits remove

    @torch.no_grad()
    def fit(self, features: Tensor, targets: Tensor) -> None:
        """Grow trees for features (N, F) and targets (N, 28), 0 or 1, with as many threads as torch uses."""
        threads, seed = torch.get_num_threads(), self.seed % 2**32  # scikit-learn accepts no larger seed
        grown = ExtraTreesRegressor(
            TREES, min_samples_leaf=LEAF, max_leaf_nodes=LEAVES, random_state=seed, n_jobs=threads
        ).fit(features.cpu().numpy(), targets.cpu().numpy())
        trees = [tree.tree_ for tree in grown.estimators_]
        counts = [tree.node_count for tree in trees]
        roots = np.cumsum([0, *counts[:-1]])
        parts = [_nodes(tree, root) for tree, root in zip(trees, roots, strict=True)]
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        found |= {"root": roots, "importance": grown.feature_importances_}
        for name, own in list(self.named_buffers()):
            setattr(self, name, torch.from_numpy(found[name]).to(own))

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) to logits (B, 28)."""
        node = self.root.long().expand(len(features), -1)  # B, TREES
        while True:
            value = features.gather(1, self.feature[node].long())
            below = torch.where(value <= self.threshold[node], self.left[node], self.right[node]).long()
            if torch.equal(below, node):
                break
            node = below
        return torch.logit(self.share[node].mean(dim=1), eps=SURE)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *others: Any) -> None:
        # Only the file determines the numbers of nodes and trees.
        for count, names in (("feature", ("feature", "threshold", "left", "right", "share")), ("root", ("root",))):
            if (stored := state_dict.get(prefix + count)) is not None:
                for name in names:
                    own = self.get_buffer(name)
                    setattr(self, name, own.new_empty(stored.shape[:1].numel(), *own.shape[1:]))
        super()._load_from_state_dict(state_dict, prefix, *others)
        if not self._is_valid():
            errors: list[str] = others[-1]
            errors.append(f"{prefix[:-1]} contains no valid trees")

    def _is_valid(self) -> bool:
        """Whether there are trees and all paths end: a child is a later node or, for a leaf, the node itself."""
        nodes = torch.arange(len(self.feature))
        later = ((child >= nodes) & (child < len(nodes)) for child in (self.left, self.right))
        inside = ((self.root, len(nodes)), (self.feature, len(self.importance)))
        checks = (*later, *((index >= 0) & (index < end) for index, end in inside), self.share.isfinite())
        return len(self.root) > 0 and all(bool(check.all()) for check in checks)


def _masks(stains: dict[str, Floats], pixel: float) -> tuple[Mask, Mask]:
    """Masks of the cells, or of the whole image if no cell is found, and of their nuclei."""
    smooth = {stain: _blur(values, SMOOTH * pixel) for stain, values in stains.items()}
    together = np.sum(list(smooth.values()), axis=0)
    cell = _above_otsu(np.log1p(together * (WHITE / max(float(together.max()), 1e-6))))
    if not cell.any():
        cell = ~cell
    nucleus = np.zeros_like(cell)
    nucleus[cell] = _above_otsu(smooth["blue"][cell])
    return cell, nucleus


def _above_otsu(values: Floats) -> Mask:
    """Whether each value, quantised to 256 levels, is above Otsu's threshold; for arrays of any shape."""
    levels = (values * (255 / max(float(values.max()), 1e-6))).astype(np.uint8).reshape(1, -1)
    _, upper = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return upper.reshape(values.shape) > 0


def _distance_to(mask: Mask) -> Floats:
    """Distance of each pixel to the nearest pixel of the mask; large if the mask is empty."""
    distances = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distances, np.float32)


def _blur(values: Floats, sigma: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)


def _mean(values: Floats, mask: Mask) -> float:
    return float(values[mask].mean()) if mask.any() else 0.0


def _correlation(a: Floats, b: Floats) -> float:
    """Pearson's correlation; 0 if ``a`` or ``b`` is constant."""
    x, y = (values - values.mean(dtype=np.float64) for values in (a, b))  # float32 is too imprecise for means
    scale = float(np.sqrt(x @ x) * np.sqrt(y @ y))
    return float(x @ y) / scale if scale > 0 else 0.0


def _nodes(tree: Any, root: int) -> dict[str, np.ndarray]:
    """The nodes of one tree, named like the buffers; children are indices into the nodes of all trees."""
    own = np.arange(tree.node_count)
    leaf = tree.children_left < 0
    return {
        "feature": np.where(leaf, 0, tree.feature),
        # Rounded down, so that comparisons with float32 features give the same result as with the double.
        "threshold": _floor32(tree.threshold),
        "left": np.where(leaf, own, tree.children_left) + root,
        "right": np.where(leaf, own, tree.children_right) + root,
        "share": tree.value[:, :, 0],
    }


def _floor32(values: np.ndarray) -> np.ndarray:
    near = values.astype(np.float32)
    return np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)
