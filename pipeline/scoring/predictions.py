"""What one model and fold says about the samples it was not trained on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.scoring.arrays import check_probabilities, read_arrays, write_arrays

KINDS = {"held_out_ids": "U", "held_out": "f", "test_ids": "U", "test": "f"}


@dataclass(frozen=True)
class Predictions:
    """Probabilities of one model and fold.

    Attributes:
        held_out_ids: (n,) str, the training samples of the fold.
        held_out: (n, 28) float32, their probabilities.
        test_ids: (m,) str, the test samples.
        test: (m, 28) float32, their probabilities.
    """

    held_out_ids: npt.NDArray[np.str_]
    held_out: npt.NDArray[np.float32]
    test_ids: npt.NDArray[np.str_]
    test: npt.NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write an npz file; the same predictions give the same bytes."""
        write_arrays(path, {name: getattr(self, name) for name in KINDS})


def load(path: Path) -> Predictions:
    """Read what `Predictions.save` wrote.

    Raises:
        InputError: the file is missing, damaged, or holds something other than one probability per id
            and label.
    """
    remedy = "run the tta stage of this model and fold again"
    predictions = Predictions(**read_arrays(path, KINDS, remedy))
    check_probabilities(path, predictions.held_out_ids, predictions.held_out, remedy)
    check_probabilities(path, predictions.test_ids, predictions.test, remedy)
    return predictions
