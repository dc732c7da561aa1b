"""The 28 locations and the four channels, in the competition's order."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import InputError

CHANNELS = ("green", "blue", "red", "yellow")
"""The protein, then the three reference stains: nucleus, microtubules, endoplasmic reticulum."""

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
"""Names of the labels, in the order of their ids 0..27."""


def parse_target(text: str) -> tuple[int, ...]:
    """Parse a value of the ``Target`` column ("16 0") to label ids, in the order written.

    Raises:
        InputError: the value is empty, repeats a label, or contains anything but ids 0..27.
    """
    words = text.split()
    if not words:
        raise InputError("the target is empty")
    if not all(word.isascii() and word.isdigit() and int(word) < len(LABELS) for word in words):
        raise InputError(f"target {text!r} contains something other than label ids 0..{len(LABELS) - 1}")
    ids = tuple(int(word) for word in words)
    if len(set(ids)) < len(ids):
        raise InputError(f"target {text!r} repeats a label")
    return ids


def format_target(ids: Iterable[int]) -> str:
    """Format label ids as a value of the ``Target`` or ``Predicted`` column: ascending, separated by spaces."""
    return " ".join(str(label) for label in sorted(ids))


def target_matrix(targets: Iterable[str]) -> npt.NDArray[np.bool_]:
    """Convert values of the ``Target`` column to an indicator matrix, (N, 28) bool."""
    rows = [parse_target(text) for text in targets]
    matrix = np.zeros((len(rows), len(LABELS)), dtype=np.bool_)
    for row, ids in enumerate(rows):
        matrix[row, list(ids)] = True
    return matrix
