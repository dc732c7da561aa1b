"""The 28 locations and the four channels, in the competition's order."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import InputError

CHANNELS = ("green", "blue", "red", "yellow")
"""The protein, then three reference stains: nucleus, microtubules, endoplasmic reticulum."""

LABELS = (
    "Nucleoplasm",
    "Nuclear membrane",
    "Nucleoli",
    "Nucleoli fibrillar center",
    "Nuclear speckles",
    "Nuclear bodies",
    "Endoplasmic reticulum",
    "Golgi apparatus",
    "Peroxisomes",
    "Endosomes",
    "Lysosomes",
    "Intermediate filaments",
    "Actin filaments",
    "Focal adhesion sites",
    "Microtubules",
    "Microtubule ends",
    "Cytokinetic bridge",
    "Mitotic spindle",
    "Microtubule organizing center",
    "Centrosome",
    "Lipid droplets",
    "Plasma membrane",
    "Cell junctions",
    "Mitochondria",
    "Aggresome",
    "Cytosol",
    "Cytoplasmic bodies",
    "Rods & rings",
)
"""Label names; a label's id is its position."""


def parse_target(text: str) -> tuple[int, ...]:
    """Read a ``Target`` cell ("16 0") as label ids, in the order written.

    Raises:
        InputError: the cell is empty, repeats a label, or holds something other than ids 0..27.
    """
    words = text.split()
    if not words:
        raise InputError("the target is empty")
    if not all(word.isascii() and word.isdigit() and int(word) < len(LABELS) for word in words):
        raise InputError(f"target {text!r} holds something other than label ids 0..{len(LABELS) - 1}")
    ids = tuple(int(word) for word in words)
    if len(set(ids)) < len(ids):
        raise InputError(f"target {text!r} repeats a label")
    return ids


def format_target(ids: Iterable[int]) -> str:
    """Write label ids as a ``Target`` or ``Predicted`` cell: ascending, separated by blanks."""
    return " ".join(str(label) for label in sorted(ids))


def target_matrix(targets: Iterable[str]) -> npt.NDArray[np.bool_]:
    """Turn ``Target`` cells into an indicator matrix, (N, 28) bool."""
    rows = [parse_target(text) for text in targets]
    matrix = np.zeros((len(rows), len(LABELS)), dtype=np.bool_)
    for row, ids in enumerate(rows):
        matrix[row, list(ids)] = True
    return matrix
