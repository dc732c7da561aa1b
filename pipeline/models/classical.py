"""Hand-crafted features of the protein on nucleus, cytoplasm and rim, and a random forest on them."""

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
"""What is measured, in this order; see ``extract_features``."""


def extract_features(image: npt.NDArray[np.uint8]) -> Floats:
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


TREES = 500
LEAF = 2
"""Training samples that a leaf holds at least."""
LEAVES = 1024
"""That a tree has at most: however many samples there are, the file has no more than 131 MB."""
SURE = 1 / (2 * TREES)
"""How near to 0 and 1 a probability comes; all trees together cannot tell it from them."""


class ForestHead(nn.Module):
    """Extremely randomised trees, each for all 28 labels at once: a leaf gives its training samples' shares of labels.

    A split is the best of one random threshold a feature, by the variance of the targets that it leaves. The
    probability is the mean over the trees, and its logit is what the head gives; it has no gradient.

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
        """No trees yet, for that many features; ``seed`` decides those that will be grown."""
        super().__init__()
        self.seed = seed
        # The nodes of all trees one after the other; a leaf is its own child.
        self.register_buffer("feature", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(0))
        self.register_buffer("left", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("right", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("share", torch.zeros(0, len(LABELS)))
        self.register_buffer("root", torch.zeros(0, dtype=torch.int32))  # of each tree
        self.register_buffer("importance", torch.zeros(features))  # share of the variance that splits by it remove

    @torch.no_grad()
    def fit(self, features: Tensor, targets: Tensor) -> None:
        """Grow trees on features (N, F) and targets (N, 28), 0 or 1, with as many threads as torch has."""
        threads, seed = torch.get_num_threads(), self.seed % 2**32  # scikit-learn takes no larger one
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
        # How many nodes and trees there are stands in the file alone.
        for count, names in (("feature", ("feature", "threshold", "left", "right", "share")), ("root", ("root",))):
            if (stored := state_dict.get(prefix + count)) is not None:
                for name in names:
                    own = self.get_buffer(name)
                    setattr(self, name, own.new_empty(stored.shape[:1].numel(), *own.shape[1:]))
        super()._load_from_state_dict(state_dict, prefix, *others)
        if not self._sound():
            errors: list[str] = others[-1]
            errors.append(f"{prefix[:-1]} holds no trees")

    def _sound(self) -> bool:
        """Whether there are trees and every way down ends: a child is a later node or, of a leaf, the node itself."""
        nodes = torch.arange(len(self.feature))
        later = ((child >= nodes) & (child < len(nodes)) for child in (self.left, self.right))
        inside = ((self.root, len(nodes)), (self.feature, len(self.importance)))
        goods = (*later, *((at >= 0) & (at < end) for at, end in inside), self.share.isfinite())
        return len(self.root) > 0 and all(bool(good.all()) for good in goods)


def _nodes(tree: Any, root: int) -> dict[str, np.ndarray]:
    """One tree's nodes by the names of the buffers, its children counted among all trees' nodes."""
    own = np.arange(tree.node_count)
    leaf = tree.children_left < 0
    return {
        "feature": np.where(leaf, 0, tree.feature),
        # Rounded down, a comparison with float32 features comes out as with the double.
        "threshold": _floor32(tree.threshold),
        "left": np.where(leaf, own, tree.children_left) + root,
        "right": np.where(leaf, own, tree.children_right) + root,
        "share": tree.value[:, :, 0],
    }


def _floor32(values: np.ndarray) -> np.ndarray:
    near = values.astype(np.float32)
    return np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)


class FeatureForest(nn.Module):
    """Hand-crafted features and a random forest on them: a model without a neural network."""

    def __init__(self, seed: int) -> None:
        """No trees yet; ``seed`` determines those that will be grown."""
        super().__init__()
        self.forest = ForestHead(len(FEATURES), seed)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 4, S, S) uint8 to logits (B, 28)."""
        logits: Tensor = self.forest(self.head_features(images))
        return logits

    def head_features(self, images: Tensor) -> Tensor:
        """(B, 4, S, S) uint8 to the input of the forest, (B, F); computed on the CPU, wherever the images are."""
        found = np.stack([extract_features(image) for image in images.cpu().numpy()])
        return torch.from_numpy(found).to(images.device)

    def most_important(self, count: int = 5) -> str:
        """The features whose splits remove most of the targets' variance, each with its share."""
        order = self.forest.importance.argsort(descending=True)[:count].tolist()
        return ", ".join(f"{FEATURES[at]} {self.forest.importance[at]:.2f}" for at in order)
