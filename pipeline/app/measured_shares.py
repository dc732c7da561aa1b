"""How often labels with a given probability were right, among the run's own out-of-fold samples."""

from pathlib import Path

import numpy as np

from pipeline.core.errors import InputError
from pipeline.core.labels import target_matrix
from pipeline.core.progress import say
from pipeline.evaluation.metrics import Bools, Floats
from pipeline.evaluation.reference_file import Reference
from pipeline.evaluation.result_files import HELD_OUT, load_blend

PAIRS = 200
"""Labels of samples that a share is measured on: its standard error is at most 3.5 percentage points."""


class MeasuredShares:
    """Shares of right labels by probability."""

    def __init__(self, probabilities: Floats, truth: Bools) -> None:
        """Take calibrated out-of-fold probabilities (N, 28) and the truth (N, 28)."""
        order = np.argsort(probabilities, axis=None, kind="stable")
        self._sorted = probabilities.ravel()[order]
        self._right = np.concatenate([[0], np.cumsum(truth.ravel()[order])])

    def share(self, probability: float) -> float:
        """The share of right labels among the `PAIRS` of the most similar rank, half of them with a lower one."""
        count = min(PAIRS, len(self._sorted))
        middle = int(np.searchsorted(self._sorted, probability))
        start = min(max(middle - count // 2, 0), len(self._sorted) - count)
        return float(self._right[start + count] - self._right[start]) / count


def read_measured_shares(run: Path, reference: Reference | None) -> MeasuredShares | None:
    """The shares of a run; None if its out-of-fold predictions or the labels of their samples are not there.

    Args:
        run: its folder.
        reference: has the labels.
    """
    if reference is None or not (run / HELD_OUT).exists():
        return None
    try:
        blend = load_blend(run / HELD_OUT)
    except InputError as error:
        say(f"no shares of right labels: {error}")
        return None
    targets = dict(zip(reference.ids.tolist(), reference.targets.tolist(), strict=True))
    shared = np.array([id_ in targets for id_ in blend.ids.tolist()], dtype=bool)
    if not shared.any():
        return None
    truth = target_matrix([targets[id_] for id_ in blend.ids[shared].tolist()])
    return MeasuredShares(blend.probabilities[shared], truth)
