"""The files of the ``ensemble`` stage (blended probabilities, decisions) and the ``explain`` stage (attention maps)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.evaluation.metrics import Bools
from pipeline.evaluation.prediction_files import check_probabilities, read_arrays, write_arrays

HELD_OUT = paths.BLEND / "held_out.npz"
TEST = paths.BLEND / "test.npz"
DECISIONS = paths.BLEND / "decisions.json"
"""The fitted decision rule, and the cross-fitted scores of each model and of the other settings."""

REMEDY = "run the ensemble stage again (python -m pipeline.stages.ensemble)"
BLEND_KINDS = {"ids": "U", "uncalibrated": "f", "probabilities": "f", "decisions": "b"}
MAP_KINDS = {"ids": "U", "labels": "i", "names": "U", "maps": "u"}


def single_fold_test(fold: int) -> Path:
    """Test predictions by the single-fold models and the rule of ``fold``, comparable with cross-validation."""
    return paths.BLEND / f"test-as-fold-{fold}.npz"


@dataclass(frozen=True)
class Blend:
    """Blended probabilities and the decisions made from them.

    Attributes:
        ids: (n,) str.
        uncalibrated: (n, 28) float32, before calibration.
        probabilities: (n, 28) float32, after calibration.
        decisions: (n, 28) bool.
    """

    ids: npt.NDArray[np.str_]
    uncalibrated: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]
    decisions: Bools

    def save(self, path: Path) -> None:
        """Write an npz file; the same blend gives the same bytes."""
        write_arrays(path, {name: getattr(self, name) for name in BLEND_KINDS})


def load_blend(path: Path) -> Blend:
    """Read what `Blend.save` wrote.

    Raises:
        InputError: the file is missing, damaged, or its arrays do not fit together.
    """
    blend = Blend(**read_arrays(path, BLEND_KINDS, REMEDY))
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


@dataclass(frozen=True)
class AttentionMaps:
    """Attention maps of one model for (sample, label) pairs.

    Attributes:
        ids: (n,) str, the sample of each pair; its maps are by the model trained without its fold.
        labels: (n,) int64, the label of each pair.
        names: (k,) str, the kinds of map, as in ``inference.attention_maps.label_maps``.
        maps: (n, k, h, w) uint8, from 0 (no attention) to 255; each covers the whole image.
    """

    ids: npt.NDArray[np.str_]
    labels: npt.NDArray[np.int64]
    names: npt.NDArray[np.str_]
    maps: npt.NDArray[np.uint8]

    def save(self, model: str) -> None:
        """Write the file of ``model``; the same maps give the same bytes."""
        write_arrays(paths.maps(model), {name: getattr(self, name) for name in MAP_KINDS})


def load_maps(model: str) -> AttentionMaps:
    """Read what `AttentionMaps.save` wrote.

    Raises:
        InputError: the file is missing, damaged, or its arrays do not fit together.
    """
    path: Path = paths.maps(model)
    remedy = "run the explain stage of this model again"
    found = AttentionMaps(**read_arrays(path, MAP_KINDS, remedy))
    pairs, kinds = len(found.ids), len(found.names)
    if found.labels.shape != (pairs,) or found.maps.ndim != 4 or found.maps.shape[:2] != (pairs, kinds):
        raise InputError(f"{path}: {pairs} ids, but maps of shape {found.maps.shape}: {remedy}")
    return found
