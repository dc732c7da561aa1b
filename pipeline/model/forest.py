"""A forest that is grown instead of trained by steps, for a handful of features."""

from typing import Any

import numpy as np
import torch
from sklearn.ensemble import ExtraTreesRegressor
from torch import Tensor, nn

from pipeline.labels import LABELS

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
    def solve(self, features: Tensor, targets: Tensor) -> None:
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
