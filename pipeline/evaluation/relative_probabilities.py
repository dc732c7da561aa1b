"""Probabilities relative to those of the image's other labels, to rank images unlike the training images."""

import numpy as np

from pipeline.evaluation.metrics import Floats
from pipeline.evaluation.ranking import Doubles


def relative_probabilities(probabilities: Floats) -> Doubles:
    """Divide the odds of each image's labels by the square root of the number of labels expected in it.

    ``p / (1 - p)`` becomes ``p / (1 - p) / sqrt(sum of the image's p)``. Images from another microscope or of other
    cells can raise or lower the probabilities of all labels at once, which changes their rank among the images, but not
    the order of the labels. For images like the training images, the sum is information: rank those as they are.

    Args:
        probabilities: (N, L), from 0 to 1.

    Returns:
        (N, L), from 0 to 1; for ranking the images of a label, and not calibrated.
    """
    p = probabilities.astype(np.float64)
    weighted = p + (1 - p) * np.sqrt(p.sum(axis=1, keepdims=True))
    relative = np.zeros_like(p)
    np.divide(p, weighted, out=relative, where=weighted > 0)
    return relative
