"""Captions follow from the run's own figures, whichever way these fall."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.core.labels import LABELS, parse_target
from pipeline.core.params import load
from pipeline.reporting.blocks import Cards, Pictures
from pipeline.reporting.finished_run import FinishedRun, read_finished_run
from pipeline.reporting.sections.annotations import label_issues_caption, label_issues_section
from pipeline.reporting.sections.dataset import duplicates_caption, folds_section, leak_caption, leakage_caption
from pipeline.reporting.sections.decisions import blend_caption, calibration_caption, choice_caption, confusions_caption
from pipeline.reporting.sections.scores import (
    pretraining_caption,
    score_section,
    submissions_caption,
    submissions_table,
    training_caption,
    training_section,
    verdict,
)
from pipeline.reporting.sections.similarity import agreement
from tests.fixtures.runs import write_run

COMMITTED = Path("params.yaml").resolve()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A finished run."""
    root = tmp_path_factory.mktemp("run")
    shutil.copy(COMMITTED, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_run()
        return read_finished_run(load())


SCORES = {
    "macro_f1": 0.4,
    "macro_f1_low": 0.35,
    "macro_f1_high": 0.45,
    "macro_f1_present": 0.5,
    "expected_test_low": 0.33,
    "expected_test_high": 0.48,
    "labels_present": 20,
    "samples": 100,
    "groups": 30,
    "confidence": 0.95,
    "baselines": {"majority": 0.1, "prior": 0.2},
}


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (0.42, "score 0.420, within 0.330 to 0.480, the range expected by cross-validation"),
        (0.3, "for a test set of this size: it is harder than the training samples"),
        (0.6, "score 0.600, above 0.330 to 0.480, the range expected by cross-validation"),
    ],
)
def test_the_verdict_says_whether_the_test_score_was_foretold(test: float, expected: str) -> None:
    scores = SCORES | {"test": {"macro_f1": 0.65}, "test_as_held_out": {"macro_f1": test}}
    text = verdict(scores, ("kaggle",))
    assert expected in text
    assert "The models averaged over all folds score 0.650." in text
    assert "over the 20 labels that occur, macro-F1 is 0.500" in text
    assert "simulated" not in text


HANDED_IN = {
    "submission": 1,
    "time": "2024-05-01 10:00",
    "commit": "0123456789ab",
    "message": "cbam-384 + forest; cross-validated macro-F1 0.400",
    "macro_f1": 0.4,
    "macro_f1_low": 0.35,
    "macro_f1_high": 0.45,
    "samples": 90,
    "public": 0.5,
}


@pytest.mark.parametrize(
    ("private", "expected"),
    [
        (
            0.41,
            "private score of the last submission, 0.410, is within the interval that cross-validation had given",
        ),
        (0.34, "private score of the last submission, 0.340, is below the interval"),
        (0.46, "private score of the last submission, 0.460, is above the interval"),
        (float("nan"), "public score of the last submission, 0.500, is above the interval"),
    ],
)
def test_kaggles_scores_stand_beside_what_was_foretold(private: float, expected: str) -> None:
    table = pd.DataFrame([HANDED_IN | {"private": 0.1}, HANDED_IN | {"time": "2024-05-02 10:00", "private": private}])
    assert expected in submissions_caption(table)
    (shown,) = submissions_table(table)
    assert [cell.text for cell in shown.rows[0]] == [
        *("2024-05-02 10:00", "0123456789ab", "0.400", "0.350 to 0.450", "0.50000"),
        f"{private:.5f}" if private == private else "n/a",
        "cbam-384 + forest",
    ]
    assert shown.rows[1][5].text == "0.10000"


def test_without_submissions_the_report_has_no_such_table(run: FinishedRun) -> None:
    assert submissions_table(run.submissions) == []
    table = pd.DataFrame([HANDED_IN | {"public": float("nan"), "private": float("nan")}])
    assert "Kaggle shows no score of the last submission." in submissions_caption(table)
    shown = score_section(dataclasses.replace(run, submissions=table)).blocks
    assert shown[:2] == score_section(run).blocks
    assert len(shown) == 3


def test_the_verdict_admits_a_score_that_shows_nothing_and_that_samples_are_simulated() -> None:
    text = verdict(SCORES | {"baselines": {"prior": 0.36}}, ("sample",))
    assert "is not above 0.360, the best baseline that uses no image: this run does not show that anything was" in text
    assert text.startswith("On 100 simulated samples of 30 groups, out-of-fold macro-F1 is 0.400 (")
    assert "The source “sample” is simulated" in text
    assert "The interval is above 0.200" in verdict(SCORES, ("sample",))


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([0.5], "was evaluated once (last value"),
        ([0.5, 0.4, 0.3], "was still falling at the end"),
        ([0.5, 0.3, 0.303], "levelled off after epoch 2"),
        ([0.5, 0.3, 0.45], "was lowest after epoch 2 and then rose by 50%: it overfits"),
    ],
)
def test_the_course_of_training_is_read_off_the_curve(run: FinishedRun, losses: list[float], expected: str) -> None:
    history = run.tables["history"].copy()
    history["held_out_loss"] = history["epoch"].map(dict(enumerate(losses)))
    assert expected in training_caption(history)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([0.8, 0.6, 0.4], "That of net was still falling at the end (last value 0.500)."),
        ([0.8, 0.402, 0.4], "That of net levelled off after epoch 2 (last value 0.500)."),
    ],
)
def test_the_caption_of_pre_training_says_what_the_encoder_has_seen(losses: list[float], expected: str) -> None:
    curve = pd.DataFrame({"epoch": range(3), "loss": losses, "mean_loss": 0.8})
    text = pretraining_caption({"net": curve}, "protein")
    assert text.startswith("Pre-training without labels (the protein from the reference stains): the squared error,")
    assert expected in text
    assert "test set included, but no label: scores of models that start from them are those of transductive" in text


def test_the_curves_of_pre_training_are_drawn_only_where_there_are_some(run: FinishedRun) -> None:
    assert len(training_section(run).blocks) == 1
    curve = pd.DataFrame({"epoch": range(3), "loss": [0.8, 0.5, 0.4], "mean_loss": 0.8})
    section = training_section(dataclasses.replace(run, pretraining={"net": curve}))
    added = section.blocks[1]
    assert isinstance(added, Pictures)
    assert "net" in added.drawings[0]


def test_captions_follow_from_the_tables(run: FinishedRun) -> None:
    bins = {str(name): table for name, table in run.tables["calibration"].groupby("probabilities", sort=False)}
    # .1 too high for 90 and .3 too high for 10 of 100 pairs.
    assert "Before, the expected calibration error is 0.120, and probabilities are mostly" in calibration_caption(bins)
    pairs = run.tables["confusions"].sort_values("count", ascending=False)
    assert "Nucleoli is missed where Nucleoplasm is wrongly predicted, in 7 samples" in confusions_caption(pairs)
    assert confusions_caption(pairs[:0]) == "No label is missed where another is wrongly predicted."
    blended = run.tables["blend"].assign(weight=[1.0] + [0.0] * (len(run.params.models) - 1))
    score = run.metrics["macro_f1"]
    first, last = blended["model"]
    assert blend_caption(run, blended) == (
        f"The blend scores {score:.3f}, {abs(score - 0.2):.3f} {'above' if score >= 0.2 else 'below'} {first} alone. "
        f"{last} did not help and got no weight."
    )
    assert "nothing is blended" in blend_caption(run, blended[:1])


def test_a_setting_that_reads_higher_than_the_one_used_is_named(run: FinishedRun) -> None:
    used, best = (run.tables["policies"][run.tables["policies"]["chosen"] == chosen] for chosen in (True, False))
    assert choice_caption(run, used, "policy").startswith("The setting used scores highest. All scores are")
    caption = choice_caption(run, pd.concat([best, used]), "policy")
    assert caption.startswith("“counts” scores 0.003 higher than the setting used, less than half the width of the")
    best = best.assign(macro_f1=0.9)
    assert ", more than half" in choice_caption(run, pd.concat([best, used]), "policy")


def test_duplicates_are_shown_side_by_side_with_what_they_say(run: FinishedRun) -> None:
    shown = folds_section(run).blocks[1]
    assert isinstance(shown, Cards)
    assert [(card.sample.id, card.title) for card in shown.cards] == [
        ("sample-000", "exact"),
        ("sample-001", "exact"),
        ("sample-003", "21 bits apart"),
        ("sample-090", "21 bits apart"),
    ]
    assert shown.cards[0].lines == [", ".join(LABELS[label] for label in parse_target(run.folds["target"].iloc[0]))]
    assert shown.cards[3].lines == ["test sample"]
    assert shown.cards[3].sample.row == 90
    assert "2 pairs of samples of the same field of view" in shown.caption
    assert "in 1 of them one is a test sample. In 1 the labels contradict each other" in shown.caption
    assert "No two samples" in duplicates_caption(run.duplicates[:0])
    assert leak_caption(None) == ""
    assert "3 of the 25 test samples also stand in a further source" in leak_caption({"samples": 3, "of": 25})


def test_memory_of_the_antibody_is_told() -> None:
    told = leakage_caption({"grouped_folds": 0.1, "image_level_folds": 0.4})
    assert "scores 0.100 with these folds and 0.400 with folds that split groups. With such a split" in told
    assert "does not identify the antibody" in leakage_caption({"grouped_folds": 0.1, "image_level_folds": 0.1})


def test_a_leak_is_told(run: FinishedRun) -> None:
    def caption(run: FinishedRun) -> str:
        return folds_section(run).blocks[0].caption

    assert "No group is in two folds" in caption(run)
    leaking = dataclasses.replace(run, audit=run.audit | {"held_out_share_with_group_in_training": 0.25})
    assert "25.0% of the held-out samples have their group in training" in caption(leaking)


def test_label_issues_are_counted_and_each_group_is_shown_once(run: FinishedRun) -> None:
    issues = run.tables["label-issues"]
    text = label_issues_caption(run, issues)
    given = int((issues["given"] == 1).sum())
    assert f"finds {len(issues)} labels of {issues['id'].nunique()} samples that may be wrong" in text
    assert f"{len(issues) - given} missing (“Also ...?”) and {given} given by mistake" in text
    assert text.endswith("all of these are errors of the models.")
    assert "contradicted by" in label_issues_caption(run, issues[:0])
    (block,) = label_issues_section(run).blocks
    assert isinstance(block, Cards)
    group = dict(zip(run.folds["id"], run.folds["group"], strict=True))
    shown = [group[card.sample.id] for card in block.cards]
    assert len(set(shown)) == len(shown) > 1


def test_the_map_says_how_often_the_most_similar_sample_shares_a_label(run: FinishedRun) -> None:
    reference = run.reference
    known = np.flatnonzero(~reference.held_out)
    scaled = (reference.vectors - reference.vectors[known].mean(0)) / reference.vectors[known].std(0)
    units = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    nearest = [known[(units[known] @ units[row]).argmax()] for row in np.flatnonzero(reference.held_out)]
    share = (run.truth[reference.held_out] & run.truth[nearest]).any(axis=1).mean()
    assert f"Of the dots, {share:.0%} share a label" in agreement(run.truth, reference)
