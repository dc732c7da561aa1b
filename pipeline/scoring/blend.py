"""The blend of all models and what is decided on it, as the ensemble stage leaves it for the others."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline import paths
from pipeline.errors import InputError
from pipeline.scoring.arrays import check_probabilities, read_arrays, write_arrays
from pipeline.scoring.metrics import Bools

HELD_OUT = paths.BLEND / "held_out.npz"
TEST = paths.BLEND / "test.npz"
DECISIONS = paths.BLEND / "decisions.json"
"""The thresholds, and how each policy and each model would have scored."""


REMEDY = "run the ensemble stage again (python -m pipeline.stages.ensemble)"
KINDS = {"ids": "U", "uncalibrated": "f", "probabilities": "f", "decisions": "b"}


def as_held_out(fold: int) -> Path:
    """Where the test samples stand decided as a fold's held-out samples are: by its networks, and its rule."""
    return paths.BLEND / f"test-as-fold-{fold}.npz"


@dataclass(frozen=True)
class Blend:
    """Blended probabilities and the decisions made on them.

    Attributes:
        ids: (n,) str.
        uncalibrated: (n, 28) float32, the blend as it comes.
        probabilities: (n, 28) float32, the blend calibrated.
        decisions: (n, 28) bool.
    """

    ids: npt.NDArray[np.str_]
    uncalibrated: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]
    decisions: Bools

    def save(self, path: Path) -> None:
        """Write an npz file; the same blend gives the same bytes."""
        write_arrays(path, {name: getattr(self, name) for name in KINDS})


def load(path: Path) -> Blend:
    """Read what `Blend.save` wrote.

    Raises:
        InputError: the file is missing, damaged, or its arrays do not fit together.
    """
    blend = Blend(**read_arrays(path, KINDS, REMEDY))
    check_probabilities(path, blend.ids, blend.uncalibrated, REMEDY)
    check_probabilities(path, blend.ids, blend.probabilities, REMEDY)
    check_probabilities(path, blend.ids, blend.decisions, REMEDY)
    return blend


def read_decisions() -> dict[str, Any]:
    """The content of ``DECISIONS``, which the ensemble stage writes.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        content: dict[str, Any] = json.loads(DECISIONS.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{DECISIONS} is missing: {REMEDY}") from None
    except ValueError as error:
        raise InputError(f"{DECISIONS} is damaged ({error}): {REMEDY}") from None
    return content
