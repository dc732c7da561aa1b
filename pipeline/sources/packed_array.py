"""Read a packed source: a memory-mapped array of images, and the index that describes its rows."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS

COLUMNS: dict[str, type] = {
    "row": np.int64,
    "id": str,
    "split": str,
    "target": str,
    "group": str,
    "height": np.int64,
    "width": np.int64,
    "phash": str,
} | {
    f"{figure}_{channel}": kind
    for channel in CHANNELS
    for figure, kind in (("digest", str), ("mean", np.float64), ("std", np.float64), ("saturated", np.float64))
}
"""The columns of the index. ``split`` is "train" or "test". ``target`` is empty for test samples, ``group`` if the
antibody is unknown. ``height`` and ``width`` are those of the original image in pixels. ``phash`` is the result of
`perceptual_hash.perceptual_hash`, empty for a uniform image. ``digest_*`` is the digest of the original file.
``mean_*`` and ``std_*`` are fractions of 255, ``saturated_*`` is the share of pixels with the value 255."""


def read_index(source: str) -> pd.DataFrame:
    """Read the index of a packed source: one row per image, in the order of the array.

    Returns:
        A frame with ``COLUMNS``; empty text is an empty string, never a missing value.

    Raises:
        InputError: the source is not packed, or its index is damaged.
    """
    path = paths.packed_index(source)
    try:
        index = pd.read_csv(path, dtype=COLUMNS, keep_default_na=False)
    except FileNotFoundError:
        raise _absent(path, source) from None
    except (ValueError, UnicodeDecodeError) as error:
        raise _damaged(path, source, str(error)) from None
    if list(index.columns) != list(COLUMNS):
        raise _damaged(path, source, "its columns are not those of this version")
    if not np.array_equal(index["row"], np.arange(len(index))):
        raise _damaged(path, source, "its rows are not numbered 0, 1, 2, ...")
    return index


def open_images(source: str) -> npt.NDArray[np.uint8]:
    """Memory-map the images of a source.

    Returns:
        (N, S, S, 4) uint8, read-only, with the channels in the order of ``labels.CHANNELS``; row ``i`` belongs to
        row ``i`` of the index.

    Raises:
        InputError: the source is not packed, or the array is damaged or differs in length from the index.
    """
    path = paths.packed_images(source)
    try:
        images: npt.NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise _absent(path, source) from None
    except (ValueError, EOFError) as error:
        raise _damaged(path, source, str(error)) from None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[2:] != (images.shape[1], len(CHANNELS)):
        raise _damaged(path, source, f"it contains {images.dtype} of shape {images.shape}")
    samples = len(read_index(source))
    if len(images) != samples:
        raise _damaged(path, source, f"it contains {len(images)} images, but the index lists {samples}")
    return images


def channel_statistics(table: pd.DataFrame) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation of each channel over all pixels of some samples, from the indexes.

    Args:
        table: one row per sample, with ``source`` and ``row``.

    Returns:
        Mean and standard deviation, (4,) each, as fractions of 255, at the images' original size.
    """
    rows: pd.DataFrame = pd.concat(
        [read_index(source).iloc[table.loc[table["source"] == source, "row"]] for source in table["source"].unique()]
    )
    means = rows[[f"mean_{channel}" for channel in CHANNELS]].to_numpy()
    stds = rows[[f"std_{channel}" for channel in CHANNELS]].to_numpy()
    mean = means.mean(axis=0)
    # Rounding can make the variance of uniform images negative.
    return mean, np.sqrt(((stds**2 + means**2).mean(axis=0) - mean**2).clip(0))


def _absent(path: Path, source: str) -> InputError:
    return InputError(f"{path} is missing: pack the source first (python -m pipeline.stages.pack --source {source})")


def _damaged(path: Path, source: str, reason: str) -> InputError:
    return InputError(f"{path} is damaged ({reason}): pack again (python -m pipeline.stages.pack --source {source})")
