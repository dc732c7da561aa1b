"""Who gets which labels: what makes a simulated competition fair, hard and like the real one."""

from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import numpy as np
import pandas as pd
import pytest

from pipeline.core.labels import LABELS, format_target, parse_target, target_matrix
from pipeline.core.params import Simulation, load
from pipeline.simulation.competition import LABEL_SETS, Entry, draw_label_sets, plan

DEFAULT = load().sample
REAL_LABELS = Path("../shared/hpa/labels/train.csv")


def split(entries: list[Entry], name: str) -> list[Entry]:
    return [entry for entry in entries if entry.split == name]


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    return plan(DEFAULT)


def test_it_has_the_size_asked_for_and_ids_sorted_as_kaggle_sorts_them(entries: list[Entry]) -> None:
    train, test = split(entries, "train"), split(entries, "test")
    assert (len(train), len(test)) == (DEFAULT.train, DEFAULT.test)
    ids = [entry.id for entry in entries]
    assert len(set(ids)) == len(ids)
    assert all(str(UUID(id_)) == id_ for id_ in ids)
    assert [entry.id for entry in train] == sorted(entry.id for entry in train)
    assert [entry.id for entry in test] == sorted(entry.id for entry in test)


def test_rows_are_not_grouped_by_antibody(entries: list[Entry]) -> None:
    train = split(entries, "train")
    neighbours = sum(one.antibody == other.antibody for one, other in pairwise(train))
    assert neighbours < 0.05 * len(train)


def test_fields_of_an_antibody_share_their_labels_and_no_antibody_is_in_both_splits(entries: list[Entry]) -> None:
    labels = defaultdict(set)
    for entry in entries:
        labels[entry.group].add(entry.labels)
    assert all(len(sets) == 1 for sets in labels.values())
    assert not {e.group for e in split(entries, "train")} & {e.group for e in split(entries, "test")}


@pytest.mark.parametrize("fields", [1.0, 3.0, 5.8])
def test_antibodies_have_the_number_of_fields_asked_for_on_average(fields: float) -> None:
    settings = DEFAULT.model_copy(update={"train": 3000, "fields_per_antibody": fields})
    train = split(plan(settings), "train")
    assert len(train) / len({entry.antibody for entry in train}) == pytest.approx(fields, rel=0.05)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_default_size_has_enough_positives_of_every_label(seed: int) -> None:
    entries = plan(DEFAULT.model_copy(update={"seed": seed}))
    train, test = split(entries, "train"), split(entries, "test")
    positives = Counter(label for entry in train for label in entry.labels)
    antibodies = Counter(label for _, label in {(e.antibody, label) for e in train for label in e.labels})
    held_back = Counter(label for entry in test for label in entry.labels)
    for label in range(len(LABELS)):
        assert positives[label] >= 10, LABELS[label]
        assert antibodies[label] >= 4, LABELS[label]
        assert held_back[label] >= 3, LABELS[label]


def test_label_sets_are_real_ones_of_one_to_four_labels() -> None:
    real = {tuple(sorted(parse_target(text))) for text in pd.read_csv(LABEL_SETS, comment="#")["target"]}
    drawn = draw_label_sets(np.random.default_rng(0), 400)
    assert set(drawn) <= real
    assert {len(labels) for labels in drawn} == {1, 2, 3, 4}


def test_label_frequencies_keep_the_real_order_but_flattened() -> None:
    table = pd.read_csv(LABEL_SETS, comment="#")
    real = table["count"].to_numpy() @ target_matrix(table["target"])
    drawn = draw_label_sets(np.random.default_rng(0), 2000)
    flat = target_matrix(" ".join(map(str, labels)) for labels in drawn).sum(axis=0)
    assert np.argmax(flat) == np.argmax(real)
    assert np.corrcoef(np.log(flat), np.log(real))[0, 1] > 0.7
    assert flat.max() / flat.min() < 0.05 * real.max() / real.min()


def test_few_antibodies_still_get_different_labels() -> None:
    drawn = draw_label_sets(np.random.default_rng(0), 6)
    assert len(drawn) == 6
    assert len(set(drawn)) > 3


def test_near_copies_repeat_a_field_of_their_own_antibody(entries: list[Entry]) -> None:
    originals = {(entry.antibody, entry.field) for entry in entries if not entry.take}
    copies = [entry for entry in entries if entry.take]
    expected = round(DEFAULT.near_duplicates * DEFAULT.train) + round(DEFAULT.near_duplicates * DEFAULT.test)
    assert len(copies) == expected > 0
    assert all((entry.antibody, entry.field) in originals for entry in copies)
    assert len(originals) + len(copies) == len(entries)


def test_the_test_set_does_not_depend_on_the_size_of_the_training_set() -> None:
    larger = plan(DEFAULT.model_copy(update={"train": 2 * DEFAULT.train}))
    assert split(larger, "test") == split(plan(DEFAULT), "test")


def test_another_seed_is_another_competition() -> None:
    other = plan(DEFAULT.model_copy(update={"seed": DEFAULT.seed + 1}))
    assert not {entry.id for entry in other} & {entry.id for entry in plan(DEFAULT)}


def test_thirty_thousand_samples_can_be_laid_out() -> None:
    settings = Simulation(
        seed=1, train=30_000, test=100, size=64, fields_per_antibody=3, near_duplicates=0.01, test_exposure=1
    )
    assert len(plan(settings)) == 30_100


@pytest.mark.skipif(not REAL_LABELS.exists(), reason="the competition's labels are not on this machine")
def test_the_stored_table_is_what_the_real_labels_count_to() -> None:
    stored = pd.read_csv(LABEL_SETS, comment="#")
    counts = Counter(format_target(parse_target(text)) for text in pd.read_csv(REAL_LABELS)["Target"])
    expected = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    assert list(stored.itertuples(index=False, name=None)) == expected
