"""Which samples an epoch shows, and how often: rare labels more than once, if asked."""

import numpy as np
import numpy.typing as npt


def repeat_factors(targets: npt.NDArray[np.bool_], below: float, most: float) -> npt.NDArray[np.float64]:
    """How often an epoch shows each sample, on average.

    A label of frequency ``f`` asks for ``sqrt(below / f)``, at least 1 and at most ``most``; a sample gets
    what its most demanding label asks for.

    Source: Gupta et al., "LVIS", CVPR 2019 (repeat-factor sampling; the cap is ours).

    Args:
        targets: (N, 28).
        below: frequency from which on a label is not rare.
        most: cap; 1 turns the repeats off.

    Returns:
        (N,), at least 1.
    """
    frequency = targets.mean(axis=0)
    by_label = np.sqrt(below / np.maximum(frequency, 1 / len(targets))).clip(1, most)
    factors: npt.NDArray[np.float64] = np.where(targets, by_label, 1.0).max(axis=1)
    return factors


def draw(factors: npt.NDArray[np.float64], offset: float) -> npt.NDArray[np.int64]:
    """Positions in rising order, each its factor rounded up or down; always as many as the factors add up to.

    Systematic sampling: a ruler with a mark at every whole number, moved by ``offset``, laid along the factors.
    An epoch has the same number of steps every time, and a factor of 2.5 is 2 in one epoch and 3 in the other.

    Args:
        factors: (N,), at least 1.
        offset: from [0, 1), a multiple of 2 ** -20, so that adding it to a position rounds nothing.

    Returns:
        (M,) with M the sum of the factors, rounded.
    """
    ends = factors.cumsum()
    count = round(float(ends[-1]))
    drawn: npt.NDArray[np.int64] = np.searchsorted(ends * (count / ends[-1]), np.arange(count) + offset, side="right")
    return drawn.clip(max=len(factors) - 1)
