"""The benchmark on label issues, at toy size: which annotations are made wrong, and what counts as found."""

import json

import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score

from benchmarks import label_issues
from benchmarks.label_issues import Case, first_precision, make_wrong, summarise
from benchmarks.real_predictions import Judged

SAMPLES, GROUPS = 240, 80


def judged(skill: float) -> Judged:
    """Probabilities that know the truth, of samples in threes that share their labels."""
    generator = np.random.default_rng(0)
    groups = np.arange(SAMPLES) % GROUPS
    truth = np.zeros((GROUPS, 28), dtype=np.bool_)
    truth[np.arange(GROUPS), generator.integers(0, 5, GROUPS)] = True
    truth[np.arange(0, GROUPS, 2), generator.integers(5, 8, GROUPS // 2)] = True
    truth = truth[groups]
    noise = generator.random(truth.shape)
    networks = {"one": ((1 - skill) * noise + skill * truth).astype(np.float32)}
    return Judged(networks, truth, groups)


def test_a_share_of_the_labels_is_removed_replaced_or_joined_by_another() -> None:
    data = judged(0.5)
    assert (make_wrong(data.truth, data.groups, 0.0, np.random.default_rng(0)) == data.truth).all()
    wrong = [make_wrong(data.truth, data.groups, 0.1, np.random.default_rng(seed)) for seed in range(40)]
    per_label = np.mean([(given != data.truth).sum() / data.truth.sum() for given in wrong])
    # Of the labels chosen, a third is replaced, which makes two pairs wrong, and so is a third of those that a sample
    # has alone.
    lonely = (data.truth.sum(axis=1) == 1).sum() / data.truth.sum()
    assert per_label == pytest.approx(0.1 * (4 / 3 + lonely / 3), rel=0.1)
    for given in wrong:
        assert given.any(axis=1).all()
        for group in range(GROUPS):
            assert len(np.unique(given[data.groups == group], axis=0)) == 1
    # New labels follow the frequencies: there are none that no sample has.
    assert not np.any([given[:, 8:] for given in wrong])


def test_precision_and_recall_are_scikit_learns_over_all_pairs() -> None:
    generator = np.random.default_rng(1)
    shape = (2, 30, 28)
    issues, wrong = generator.random(shape) < 0.1, generator.random(shape) < 0.05
    cases = [Case(*each) for each in zip(issues, wrong, generator.random(shape), strict=True)]
    found = summarise(cases, np.arange(30) // 2)
    assert found["precision"] == pytest.approx(precision_score(wrong.ravel(), issues.ravel()))
    assert found["recall"] == pytest.approx(recall_score(wrong.ravel(), issues.ravel()))
    assert found["precision_low"] < found["precision"] < found["precision_high"]
    assert found["recall_low"] < found["recall"] < found["recall_high"]
    assert (found["issues"], found["wrong"]) == (issues.sum() / 2, wrong.sum() / 2)


def test_the_first_issues_are_the_most_confident_ones() -> None:
    wrong = np.array([[True, False, True, False]])
    issues = np.array([[True, True, False, True]])
    assert first_precision(Case(issues, wrong, np.array([[0.9, 0.8, 1.0, 0.1]]))) == 0.5
    assert first_precision(Case(issues, wrong, np.array([[0.1, 0.8, 1.0, 0.7]]))) == 0


def test_good_probabilities_find_what_was_made_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(label_issues, "RESAMPLES", 50)
    good, bad = (label_issues.main(judged(skill), None, None, repeats=2) for skill in (0.95, 0.0))
    assert good["share"].tolist() == [0.02, 0.1]
    assert (good["recall"] > 0.8).all()
    assert (good["precision"] > 0.9).all()
    assert (bad["precision"] < 0.1).all()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["n"], figures["groups"], figures["draws"]) == (SAMPLES, GROUPS, 2)
    assert figures["results"][0]["wrong"] == pytest.approx(bad["wrong"].iloc[0])
