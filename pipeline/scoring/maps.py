"""Where one model looked on the examples: attention maps as a file that is small and can be drawn without a network."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline import paths
from pipeline.errors import InputError
from pipeline.scoring.arrays import read_arrays, write_arrays

KINDS = {"ids": "U", "labels": "i", "names": "U", "maps": "u"}


@dataclass(frozen=True)
class Maps:
    """What one model's attention was on for pairs of sample and label.

    Attributes:
        ids: (n,) str, the sample of each pair; held out by the fold whose weights drew the maps.
        labels: (n,) int64, the label of each pair.
        names: (k,) str, the kinds of map, those of ``model.maps.label_maps``.
        maps: (n, k, h, w) uint8, 0 for no attention and 255 for most; the whole image, of whatever side.
    """

    ids: npt.NDArray[np.str_]
    labels: npt.NDArray[np.int64]
    names: npt.NDArray[np.str_]
    maps: npt.NDArray[np.uint8]

    def save(self, model: str) -> None:
        """Write the file of ``model``; the same maps give the same bytes."""
        write_arrays(paths.maps(model), {name: getattr(self, name) for name in KINDS})


def load(model: str) -> Maps:
    """Read what `Maps.save` wrote.

    Raises:
        InputError: the file is missing, damaged, or its arrays do not fit together.
    """
    path: Path = paths.maps(model)
    remedy = "run the explain stage of this model again"
    found = Maps(**read_arrays(path, KINDS, remedy))
    pairs, kinds = len(found.ids), len(found.names)
    if found.labels.shape != (pairs,) or found.maps.ndim != 4 or found.maps.shape[:2] != (pairs, kinds):
        raise InputError(f"{path}: {pairs} ids, but maps of shape {found.maps.shape}: {remedy}")
    return found
