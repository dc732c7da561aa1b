"""Whether one run is better than another: ``python -m pipeline.compare A [B]``.

A and B are finished runs: folders, or git revisions whose outputs are in DVC's cache; B is the working folder where
it is left out. Reads data/folds.csv and blend/held_out.npz of both, and the section ``score`` of params.yaml.

The interval speaks of other samples of the same kind. It knows nothing of the luck of training: the same parameters
with another seed are another run.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import dvc.api
import numpy as np
import pandas as pd
from dvc.exceptions import DvcException

from pipeline import paths
from pipeline.errors import InputError, run_stage
from pipeline.labels import target_matrix
from pipeline.params import Score, load
from pipeline.scoring.arrays import read_arrays
from pipeline.scoring.blend import HELD_OUT
from pipeline.scoring.metrics import Bools
from pipeline.scoring.paired import Difference, difference

NEEDED = (paths.FOLDS, HELD_OUT)


@dataclass(frozen=True)
class Run:
    """The held-out samples of a finished run.

    Attributes:
        name: as the user gave it.
        samples: indexed by id: target, group and fold.
        decisions: (N, 28), in the order of ``samples``.
    """

    name: str
    samples: pd.DataFrame
    decisions: Bools

    def on(self, ids: "pd.Index[str]") -> Bools:
        """The decisions on some of its samples."""
        chosen: Bools = self.decisions[self.samples.index.get_indexer(ids)]
        return chosen


def read_run(name: str) -> Run:
    """Read a run from a folder or, where no folder has that name, from DVC's cache at a git revision.

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
            except DvcException as error:
                raise InputError(
                    f"{name}: {path} of that revision cannot be read ({error}): name a folder or a revision that has "
                    "a finished run in DVC's cache (git checkout REVISION, then dvc repro or dvc pull)"
                ) from None
        return _read_folder(Path(folder), name)


def _read_folder(folder: Path, name: str) -> Run:
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
    return Run(name, samples, arrays["decisions"])


def compare(first: Run, second: Run, settings: Score) -> tuple[Difference, pd.DataFrame, str]:
    """Compare two runs on the samples that both have held out.

    Returns:
        The difference in macro-F1, the table of labels, and both in words.

    Raises:
        InputError: they have no sample in common, or the truth of one differs.
    """
    common = first.samples.index.intersection(second.samples.index, sort=False)
    if common.empty:
        raise InputError(f"{first.name} and {second.name} have no held-out sample in common: nothing to compare")
    before, after = first.samples.loc[common], second.samples.loc[common]
    if len(differing := common[before["target"] != after["target"]]):
        raise InputError(
            f"{first.name} and {second.name} give different truth for {len(differing)} samples, such as "
            f"{differing[0]}: compare runs on the same labels"
        )
    groups = after["group"].to_numpy(dtype=np.str_)
    truth = target_matrix(after["target"])
    found, table = difference(first.on(common), second.on(common), truth, groups, settings)
    lines = [_sentence(first.name, second.name, found, settings.confidence, len(common), len(np.unique(groups)))]
    if alone := len(first.samples) + len(second.samples) - 2 * len(common):
        lines.append(f"{alone} samples that only one of them holds are left out.")
    if not before["fold"].equals(after["fold"]):
        lines.append("Their folds differ, so part of the difference is that of the folds.")
    return found, table, "\n".join(lines)


def _sentence(first: str, second: str, found: Difference, confidence: float, samples: int, groups: int) -> str:
    ends = (found.low, found.high)
    if not found.is_clear:
        size = f"{found.estimate:+.3f} for {second}, {confidence:.0%} interval {ends[0]:+.3f} to {ends[1]:+.3f}"
        return f"{first} and {second} cannot be told apart ({size}; {samples:,} samples, {groups:,} groups)."
    better = second if found.estimate > 0 else first
    low, high = sorted(abs(end) for end in ends)
    return (
        f"{better} is better by {abs(found.estimate):.3f} in macro-F1 ({confidence:.0%} interval {low:.3f} to "
        f"{high:.3f}; {samples:,} samples, {groups:,} groups)."
    )


def main() -> None:
    """Compare the runs that the command line names."""
    parser = argparse.ArgumentParser(description="Compare two finished runs on the samples both have held out.")
    parser.add_argument("first", metavar="A", help="a folder or a git revision")
    parser.add_argument("second", metavar="B", nargs="?", default=".", help="the same; the working folder if left out")
    arguments = parser.parse_args()
    settings = load().score
    _, table, words = compare(read_run(arguments.first), read_run(arguments.second), settings)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    clear = int(((table["low"] > 0) | (table["high"] < 0)).sum())
    by_chance = (1 - settings.confidence) * len(table)
    print(f"\n{clear} of {len(table)} labels differ clearly; {by_chance:.1f} of {len(table)} would by chance.")
    print(words)


if __name__ == "__main__":
    run_stage(main)
