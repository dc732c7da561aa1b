"""The learning rate as a function of the step, with no state to save or lose."""

import math


def learning_rate(step: int, *, steps: int, peak: float, warmup: float) -> float:
    """Rise linearly to ``peak`` over the first ``warmup`` share of the steps, then fall along a cosine to 0.

    Source: Loshchilov & Hutter, "SGDR", ICLR 2017 (the cosine); Goyal et al. 2017 (the warm-up).

    Args:
        step: the step about to be taken, 0 to ``steps`` - 1.
        steps: how many there are.
        peak: the highest rate.
        warmup: share of the steps, 0..1.
    """
    rise = warmup * steps
    if step < rise:
        return peak * (step + 1) / (rise + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))
