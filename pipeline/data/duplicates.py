"""Find duplicates, which are pictures of one field of view, by file digest and by perceptual hash."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS

BAND_BITS = 16
"""Bits per band of a hash. If two hashes differ in few bits, one of their bands differs in at most one bit."""
CANDIDATES = 2_000_000
"""Number of pairs compared at a time, which bounds the memory."""
FEW = 50
"""A chain of up to this many duplicates is accepted in any data set, however small."""
ATLAS_PREFIXES = ("HPA", "CAB")
"""Of the names of antibodies that the Human Protein Atlas has made, and of those that it has bought."""

SAMPLE_COLUMNS = ["id", "source", "split", "target"]
COLUMNS = [f"{column}_{side}" for side in "ab" for column in SAMPLE_COLUMNS] + ["kind", "distance", "labels"]
"""The columns of duplicates.csv, one row per pair. ``kind`` is "exact" (identical files) or "near". ``distance`` is the
number of bits in which the hashes differ. ``labels`` is "same", "different", or empty if a sample is a test sample."""

Positions = npt.NDArray[np.int64]


def find_duplicates(samples: pd.DataFrame, bits: int) -> pd.DataFrame:
    """List the pairs of samples that show one field of view, within and across splits and sources.

    Of n copies of the same files, each is paired with the first one only. Samples without a perceptual hash are
    ignored: uniform images are similar to each other whatever their field of view.

    Args:
        samples: rows of the indexes, with ``id``, ``source``, ``split``, ``target``, ``phash``, ``digest_<channel>``.
        bits: maximum number of bits in which the hashes of near-duplicates differ.

    Returns:
        A frame with ``COLUMNS``: pairs with different labels first, then by distance.
    """
    known = samples[samples["phash"] != ""].reset_index(drop=True)
    files = known.groupby([f"digest_{channel}" for channel in CHANNELS], sort=False).ngroup().to_numpy()
    _, first = np.unique(files, return_index=True)
    copies = np.setdiff1d(np.arange(len(known)), first)
    exact = np.column_stack([first[files[copies]], copies])
    distinct = np.sort(first)
    hashes = np.array([list(bytes.fromhex(text)) for text in known["phash"].iloc[distinct]], dtype=np.uint8)
    pairs, distances = near_pairs(hashes, bits)
    both = np.concatenate([exact, distinct[pairs]])
    sides = [known.iloc[both[:, i]][SAMPLE_COLUMNS].reset_index(drop=True).add_suffix(f"_{'ab'[i]}") for i in (0, 1)]
    found = pd.concat(sides, axis=1)
    found["kind"] = ["exact"] * len(exact) + ["near"] * len(pairs)
    found["distance"] = np.concatenate([np.zeros(len(exact), dtype=np.int64), distances])
    labelled = (found["target_a"] != "") & (found["target_b"] != "")
    same = np.where(found["target_a"] == found["target_b"], "same", "different")
    found["labels"] = np.where(labelled, same, "")
    order = found.assign(agree=found["labels"] != "different")
    return order.sort_values(["agree", "distance", "id_a", "id_b"])[COLUMNS].reset_index(drop=True)


def near_pairs(hashes: npt.NDArray[np.uint8], bits: int) -> tuple[Positions, Positions]:
    """Find the pairs of hashes that differ in at most ``bits`` bits, without comparing all pairs.

    Multi-index hashing (Norouzi et al., "Fast Search in Hamming Space with Multi-Index Hashing", CVPR 2012):
    hashes are compared if one of their bands differs in at most one bit. All pairs that differ in fewer bits than
    twice the number of bands (at most 31 of 256 bits) are found, and nearly all pairs with larger differences.

    Args:
        hashes: (N, 32) uint8.
        bits: maximum number of different bits.

    Returns:
        The pairs (P, 2), sorted and without repeats, the smaller position first; and their distances (P,).
    """
    samples = len(hashes)
    if not samples:
        return np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.int64)
    words = np.ascontiguousarray(hashes).view(np.uint64)  # N, 4
    kept = [np.empty(0, dtype=np.int64)]
    for band in np.ascontiguousarray(hashes).view(np.uint16).T:
        for left, right in _candidates(band):
            near = _distance(words, left, right) <= bits
            kept.append(np.minimum(left[near], right[near]) * samples + np.maximum(left[near], right[near]))
    pairs = np.column_stack(np.divmod(np.unique(np.concatenate(kept)), samples))
    return pairs, _distance(words, pairs[:, 0], pairs[:, 1])


def check_chains(pairs: Positions, samples: int, bits: int) -> None:
    """Check that the threshold is not so large that chains of similar images connect much of the data set.

    Args:
        pairs: (P, 2) positions of duplicates.
        samples: number of samples.
        bits: the threshold, for the message.

    Raises:
        InputError: more than a tenth of the samples (and more than ``FEW``) are connected.
    """
    chains = join_groups(np.arange(samples).astype(np.str_), pairs)
    largest = int(np.unique(chains, return_counts=True)[1].max(initial=0))
    if largest > max(samples / 10, FEW):
        raise InputError(
            f"folds.near_duplicates: with {bits} bits, {largest:,} of {samples:,} samples count as one field of view, "
            "which is implausible: lower it in params.yaml, or look for repeated images on the contact sheet"
        )


def join_groups(groups: npt.NDArray[np.str_], pairs: Positions) -> npt.NDArray[np.str_]:
    """Merge groups that are connected by duplicates: connected components of groups and pairs.

    Args:
        groups: (N,) str, the group of each sample.
        pairs: (P, 2) positions of duplicates.

    Returns:
        (N,) str: for each sample, the first name in sorted order of the groups that were merged.
    """
    names, membership = np.unique(groups, return_inverse=True)
    links = coo_array((np.ones(len(pairs)), tuple(membership[pairs].T)), shape=(len(names), len(names)))
    _, component = connected_components(links, directed=False)
    _, first = np.unique(component, return_index=True)
    joined: npt.NDArray[np.str_] = names[first[component]][membership]
    return joined


def antibody_pairs(groups: npt.NDArray[np.str_]) -> Positions:
    """Link the two ways to write an antibody of the Human Protein Atlas: 10580, as in ids of images, and HPA010580.

    Args:
        groups: (N,) str, the group of each sample.

    Returns:
        (P, 2): for each antibody that is written in both ways, the positions of a sample of each.
    """
    names, first = np.unique(groups, return_index=True)
    positions = dict(zip(names.tolist(), first.tolist(), strict=True))
    pairs = [
        (position, positions[other])
        for name, position in positions.items()
        if name.isascii() and name.isdigit()
        for other in (f"{prefix}{int(name):06}" for prefix in ATLAS_PREFIXES)
        if other in positions
    ]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _candidates(band: npt.NDArray[np.uint16]) -> Iterator[tuple[Positions, Positions]]:
    """Pairs of positions whose values of one band (N,) are equal or differ in one bit, without repeats, in batches."""
    order = np.argsort(band, kind="stable")
    values = band[order].astype(np.int64)
    starts = np.searchsorted(values, np.arange(2**BAND_BITS + 1))  # where each value starts in ``order``
    yield from _expanded(order, order, np.arange(len(band)) + 1, starts[values + 1])
    for bit in range(BAND_BITS):
        without = values & 1 << bit == 0
        having = values[without] | 1 << bit
        yield from _expanded(order[without], order, starts[having], starts[having + 1])


def _expanded(
    left: Positions, right: Positions, begin: Positions, end: Positions
) -> Iterator[tuple[Positions, Positions]]:
    """Pair each ``left[i]`` with all of ``right[begin[i]:end[i]]``, about ``CANDIDATES`` pairs at a time."""
    total = np.concatenate([[0], np.cumsum(end - begin)])
    start = 0
    while start < len(left):
        stop = max(int(np.searchsorted(total, total[start] + CANDIDATES, side="right")) - 1, start + 1)
        counts = (end - begin)[start:stop]
        within = np.arange(counts.sum()) - np.repeat(total[start:stop] - total[start], counts)
        yield np.repeat(left[start:stop], counts), right[np.repeat(begin[start:stop], counts) + within]
        start = stop


def _distance(words: npt.NDArray[np.uint64], left: Positions, right: Positions) -> Positions:
    distances: Positions = np.bitwise_count(words[left] ^ words[right]).sum(axis=1, dtype=np.int64)
    return distances
