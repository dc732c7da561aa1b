"""Check that a trained model predicts numbers: one that diverged, or whose weights are damaged, does not."""

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import InputError


def check_finite(probabilities: npt.NDArray[np.float32], model: str) -> None:
    """Check the probabilities of a model before anything is written.

    Args:
        probabilities: of any shape.
        model: the model or its file, for the message.

    Raises:
        InputError: one of them is not finite.
    """
    if not np.isfinite(probabilities).all():
        raise InputError(
            f"{model}: its predictions are not finite: its training diverged, its weights are damaged, or precision "
            "fp16 overflows: set precision: fp32, or lower the model's learning_rate, and train it again"
        )
