"""The packed form of a source: one memory-mapped array of images and the index of its rows."""

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
"""The index's columns. ``split`` is "train" or "test"; ``target`` is empty for test samples, ``group`` where
no antibody is known; ``height`` and ``width`` are those of the original in pixels; ``phash`` is that of
`perceptual.perceptual_hash`, empty for an even image; ``digest_*`` is that of the original file's bytes; ``mean_*``
and ``std_*`` are shares of white, ``saturated_*`` the share of white pixels."""


def read_index(source: str) -> pd.DataFrame:
    """Read what is known of each packed image, one row an image, in the array's order.

    Returns:
        A frame with ``COLUMNS``; an empty cell of text is an empty string, never missing.

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
        raise _damaged(path, source, "its columns are not those this version writes")
    if not np.array_equal(index["row"], np.arange(len(index))):
        raise _damaged(path, source, "its rows are not numbered 0, 1, 2, ...")
    return index


def open_images(source: str) -> npt.NDArray[np.uint8]:
    """Map the images of a source into memory without reading them.

    Returns:
        (N, S, S, 4) uint8, read-only, channels in the order of ``labels.CHANNELS``; row ``i`` is row ``i`` of
        the index.

    Raises:
        InputError: the source is not packed, or the array is damaged or of another length than the index.
    """
    path = paths.packed_images(source)
    try:
        images: npt.NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise _absent(path, source) from None
    except (ValueError, EOFError) as error:
        raise _damaged(path, source, str(error)) from None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[2:] != (images.shape[1], len(CHANNELS)):
        raise _damaged(path, source, f"it holds {images.dtype} of shape {images.shape}")
    samples = len(read_index(source))
    if len(images) != samples:
        raise _damaged(path, source, f"it holds {len(images)} images where the index lists {samples}")
    return images


def _absent(path: Path, source: str) -> InputError:
    return InputError(f"{path} is missing: pack the source first (python -m pipeline.stages.pack --source {source})")


def _damaged(path: Path, source: str, reason: str) -> InputError:
    return InputError(f"{path} is damaged ({reason}): pack again (python -m pipeline.stages.pack --source {source})")


def channel_statistics(table: pd.DataFrame) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and spread of each channel over all pixels of some samples, from the indexes.

    Args:
        table: a row a sample, with ``source`` and ``row``.

    Returns:
        Two arrays (4,), as shares of white, at the images' native size.
    """
    rows: pd.DataFrame = pd.concat(
        [read_index(source).iloc[table.loc[table["source"] == source, "row"]] for source in table["source"].unique()]
    )
    means = rows[[f"mean_{channel}" for channel in CHANNELS]].to_numpy()
    stds = rows[[f"std_{channel}" for channel in CHANNELS]].to_numpy()
    mean = means.mean(axis=0)
    # Rounding can take the variance of flat images below zero.
    return mean, np.sqrt(((stds**2 + means**2).mean(axis=0) - mean**2).clip(0))
