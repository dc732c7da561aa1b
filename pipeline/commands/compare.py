"""Is one run better than another? ``python -m pipeline compare A [B]``.

A and B are finished runs: folders, or git revisions whose outputs are in DVC's cache. B defaults to the working folder.
Reads data/folds.csv and blend/held_out.npz of both, and ``score`` of params.yaml.

The confidence interval covers the choice of samples only. Retraining with another seed changes the score too, so two
runs with the same parameters can differ significantly. The command prints this caveat below every comparison.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dvc.api
import numpy as np
import numpy.typing as npt
import pandas as pd
from dvc.exceptions import DvcException
from pygit2 import GitError

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.core.labels import target_matrix
from pipeline.core.params import Score, load
from pipeline.evaluation.intervals import Difference, difference
from pipeline.evaluation.metrics import Bools
from pipeline.evaluation.prediction_files import read_arrays
from pipeline.evaluation.result_files import HELD_OUT

ONE_SEED = (
    "Each run was trained with one seed, and the interval does not include the variation between seeds: two runs with "
    "the same parameters can differ significantly. Train both with further seeds before relying on a small difference."
)

NEEDED = (paths.FOLDS, HELD_OUT)
"""Files that are read from a git revision."""


@dataclass(frozen=True)
class ScoredRun:
    """The out-of-fold decisions of a finished run.

    Attributes:
        name: the folder or revision, as the user typed it.
        samples: columns ``target``, ``group`` and ``fold``, indexed by sample id.
        decisions: (N, 28), in the order of ``samples``.
    """

    name: str
    samples: pd.DataFrame
    decisions: Bools

    def on(self, ids: "pd.Index[str]") -> Bools:
        """The decisions for the samples ``ids``, in their order."""
        chosen: Bools = self.decisions[self.samples.index.get_indexer(ids)]
        return chosen


def read_scored_run(name: str) -> ScoredRun:
    """Read a run from a folder or, if there is no folder of that name, from DVC's cache at a git revision.

    Raises:
        InputError: there is no such folder or revision, its outputs are not in the cache, or they are damaged.
    """
    if Path(name).is_dir():
        return _read_folder(Path(name), name)
    with tempfile.TemporaryDirectory() as folder:
        for path in NEEDED:
            target = Path(folder) / path
            target.parent.mkdir(exist_ok=True)
            try:
                target.write_bytes(dvc.api.read(str(path), rev=name, mode="rb"))
            except (DvcException, GitError) as error:
                raise InputError(
                    f"{name}: {path} of that revision cannot be read ({error}): give a folder, or a revision that has "
                    "a finished run in DVC's cache (git checkout REVISION, then dvc repro or dvc pull)"
                ) from None
        return _read_folder(Path(folder), name)


def _read_folder(folder: Path, name: str) -> ScoredRun:
    remedy = "run dvc repro there first"
    try:
        samples = pd.read_csv(folder / paths.FOLDS, dtype=str, keep_default_na=False).set_index("id")
        samples = samples[["target", "group", "fold"]]
    except FileNotFoundError:
        raise InputError(f"{name}: {paths.FOLDS} is missing: {remedy}") from None
    except (KeyError, ValueError) as error:
        raise InputError(f"{name}: {paths.FOLDS} is damaged ({error}): {remedy}") from None
    try:
        arrays = read_arrays(folder / HELD_OUT, {"ids": "U", "decisions": "b"}, remedy)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    if not np.array_equal(arrays["ids"], samples.index) or not samples.index.is_unique:
        raise InputError(f"{name}: the samples of {HELD_OUT} are not those of {paths.FOLDS}: {remedy}")
    return ScoredRun(name, samples, arrays["decisions"])


def compare(first: ScoredRun, second: ScoredRun, settings: Score) -> tuple[Difference, pd.DataFrame, str]:
    """Compare the out-of-fold decisions of two runs on the samples that both have.

    Returns:
        The difference in macro-F1 with its confidence interval, the table of labels, and the conclusion as text. If a
        run has samples that the other one lacks, as with a further source, the table also counts the labels of these:
        ``only_first`` and ``only_second``.

    Raises:
        InputError: the runs have no sample in common, or disagree on the true labels of one.
    """
    common = first.samples.index.intersection(second.samples.index, sort=False)
    if common.empty:
        raise InputError(f"{first.name} and {second.name} have no sample in common: nothing to compare")
    before, after = first.samples.loc[common], second.samples.loc[common]
    if len(differing := common[before["target"] != after["target"]]):
        raise InputError(
            f"{first.name} and {second.name} have different true labels for {len(differing)} samples, such as "
            f"{differing[0]}: compare runs on the same labels"
        )
    groups = after["group"].to_numpy(dtype=np.str_)
    truth = target_matrix(after["target"])
    found, table = difference(first.on(common), second.on(common), truth, groups, settings)
    if len(first.samples) > len(common) or len(second.samples) > len(common):
        table["only_first"], table["only_second"] = (_positives_beyond(run, common) for run in (first, second))
    lines = [_sentence(first.name, second.name, found, settings.confidence, len(common), len(np.unique(groups)))]
    if unshared := len(first.samples) + len(second.samples) - 2 * len(common):
        lines.append(f"{unshared} samples that are in only one of the two runs are left out.")
    if not before["fold"].equals(after["fold"]):
        lines.append("Their folds differ, and part of the difference may come from that.")
    lines.append(ONE_SEED)
    return found, table, "\n".join(lines)


def _positives_beyond(run: ScoredRun, common: "pd.Index[str]") -> npt.NDArray[np.int64]:
    """How many samples with each label a run has beside the common ones, (28,)."""
    counts: npt.NDArray[np.int64] = target_matrix(run.samples.drop(common)["target"]).sum(axis=0)
    return counts


def _sentence(first: str, second: str, found: Difference, confidence: float, samples: int, groups: int) -> str:
    ends = (found.low, found.high)
    if not found.is_clear:
        size = f"{found.estimate:+.3f} for {second}, {confidence:.0%} interval {ends[0]:+.3f} to {ends[1]:+.3f}"
        return f"{first} and {second} do not differ significantly ({size}; {samples:,} samples, {groups:,} groups)."
    better = second if found.estimate > 0 else first
    low, high = sorted(abs(end) for end in ends)
    return (
        f"{better} is better by {abs(found.estimate):.3f} in macro-F1 ({confidence:.0%} interval {low:.3f} to "
        f"{high:.3f}; {samples:,} samples, {groups:,} groups)."
    )


def main(arguments: Sequence[str]) -> None:
    """Compare the runs given on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline compare",
        description="Is one run better than another? A paired bootstrap on the out-of-fold samples that both have.",
        epilog="Example: after a change and dvc repro, `python -m pipeline compare HEAD` compares the run of the last "
        "commit with this one. The interval covers the choice of samples, not the variation between training seeds.",
    )
    parser.add_argument("first", metavar="A", help="folder of a run, or a git revision with outputs in DVC's cache")
    parser.add_argument("second", metavar="B", nargs="?", default=".", help="the same (default: the working folder)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="also write the table of labels to this CSV file")
    parsed = parser.parse_args(arguments)
    if parsed.out is not None and parsed.out.is_dir():
        raise InputError(f"--out {parsed.out} is a folder: name a file")
    settings = load().score
    _, table, words = compare(read_scored_run(parsed.first), read_scored_run(parsed.second), settings)
    if parsed.out is not None:
        with paths.replacing(parsed.out) as temporary:
            table.to_csv(temporary, index=False)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    clear = int(((table["low"] > 0) | (table["high"] < 0)).sum())
    by_chance = (1 - settings.confidence) * len(table)
    print(f"\n{clear} of {len(table)} labels differ significantly; {by_chance:.1f} would be expected to by chance.")
    print(words)
