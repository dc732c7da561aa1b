"""Plan of a simulated competition: its antibodies, their labels, fields of view and ids."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.core.labels import parse_target, target_matrix
from pipeline.core.params import Simulation

LABEL_SETS = Path(__file__).with_name("label_sets.csv")
"""Frequency of each set of labels in the real competition's train.csv (columns target, count)."""
MOST_LABELS = 4
"""Maximum number of labels of a sample."""
FLATTENING = 0.6
"""0 keeps the real label frequencies, 1 makes them about equal."""
LEAST_SHARE = 0.033
"""Minimum share of antibodies per label, if there are enough antibodies."""
SPLIT_STREAM = {"train": 0, "test": 1}


@dataclass(frozen=True)
class Entry:
    """A sample: its antibody, its field of view, and which picture of the field it is."""

    id: str
    split: Literal["train", "test"]
    antibody: int
    labels: tuple[int, ...]
    field: int
    take: int
    """0, or 1 for a near-duplicate picture of the same field."""

    @property
    def group(self) -> str:
        """The antibody's name."""
        return f"HPA{self.antibody:06d}"


def plan(settings: Simulation) -> list[Entry]:
    """Plan the competition: training entries, then test entries, each sorted by id."""
    train = _plan_split(settings, "train", settings.train, first_antibody=1)
    # Test antibodies start at a high number, so that they stay the same if the training set grows.
    test = _plan_split(settings, "test", settings.test, first_antibody=500_001)
    return train + test


def _plan_split(settings: Simulation, split: Literal["train", "test"], count: int, first_antibody: int) -> list[Entry]:
    rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(0, SPLIT_STREAM[split])))
    antibody = _antibodies(rng, count, settings.fields_per_antibody)
    sets = draw_label_sets(rng, int(antibody[-1]) + 1)
    field = np.arange(count) - np.searchsorted(antibody, antibody)
    take = np.zeros(count, dtype=np.intp)
    last = np.flatnonzero(np.append(antibody[1:] != antibody[:-1], True) & (field > 0))
    copies = rng.permutation(last)[: round(settings.near_duplicates * count)]
    field[copies], take[copies] = 0, 1
    entries = [
        Entry(str(UUID(bytes=rng.bytes(16), version=4)), split, first_antibody + int(a), sets[a], int(f), int(t))
        for a, f, t in zip(antibody, field, take, strict=True)
    ]
    return sorted(entries, key=lambda entry: entry.id)


def _antibodies(rng: np.random.Generator, count: int, fields: float) -> npt.NDArray[np.intp]:
    """Antibody numbers of ``count`` fields, ascending; each antibody has 2/3 to 4/3 of ``fields`` fields."""
    low, high = max(round(fields * 2 / 3), 1), max(round(fields * 4 / 3), 1)
    sizes = rng.integers(low, high + 1, count)
    return np.repeat(np.arange(count), sizes)[:count]


def draw_label_sets(rng: np.random.Generator, count: int) -> list[tuple[int, ...]]:
    """Draw real label sets, of one to four labels each, so that rare labels are more frequent than in reality."""
    sets, weights = _flattened()
    has = target_matrix(" ".join(map(str, labels)) for labels in sets)
    least = max(round(LEAST_SHARE * count), 1)
    drawn: list[int] = []
    positives = np.zeros(has.shape[1], dtype=np.intp)
    for label in np.argsort(weights @ has):
        while len(drawn) < count and positives[label] < least:
            drawn.append(int(rng.choice(len(sets), p=_share(weights * has[:, label]))))
            positives += has[drawn[-1]]
    drawn += rng.choice(len(sets), count - len(drawn), p=_share(weights)).tolist()
    return [sets[i] for i in rng.permutation(drawn)]


def _flattened() -> tuple[list[tuple[int, ...]], npt.NDArray[np.float64]]:
    """The label sets and their weights, which are counts divided by a power of their labels' frequencies."""
    table = pd.read_csv(LABEL_SETS, comment="#")
    sets = [tuple(sorted(parse_target(text))) for text in table["target"]]
    total = table["count"].to_numpy() @ target_matrix(table["target"])
    kept = [i for i, labels in enumerate(sets) if len(labels) <= MOST_LABELS]
    # With the geometric mean over a set's labels, one rare label increases the weight of its sets.
    weights = [table["count"][i] / np.exp(FLATTENING * np.log(total[list(sets[i])]).mean()) for i in kept]
    return [sets[i] for i in kept], np.array(weights)


def _share(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    share: npt.NDArray[np.float64] = weights / weights.sum()
    return share
