"""What a search says: ahead only if the interval is above 0, and how much of the gain was luck."""

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from ruamel.yaml import YAML

from pipeline.search import findings
from pipeline.search.findings import Result
from pipeline.search.space import Scalar, Space
from pipeline.search.study import Trial
from pipeline.search.verdict import Comparison, Estimate, Luck
from tests.fixtures.searches import MODEL, configure

DRAWN: dict[str, Scalar] = {"learning_rate": 0.02, "epochs": 2, "loss": '{"focal": 1.0}', "focal.gamma": 1.0}
PARTIAL: dict[str, Scalar] = {"learning_rate": 0.003, "epochs": 1, "loss": '{"bce": 1.0}'}


def result(low: float, high: float, gain: float = 0.05, luck: float = 0.02) -> Result:
    """A search of four trials, of which the first is the default and the second the winner if ``gain`` is positive."""
    space = Space(configure())
    trials = [
        Trial(0, "complete", space.default_values(), 0.6, {100: 0.2}, ""),
        Trial(1, "complete", DRAWN, 0.6 + gain, {50: 0.3, 100: 0.1}, ""),
        Trial(2, "pruned", PARTIAL, None, {100: 0.5}, ""),
        Trial(3, "failed", PARTIAL, None, {}, "the loss is nan"),
    ]
    winner = 1 if gain > 0 else 0
    score, difference = Estimate(0.7, 0.6, 0.8), Estimate((low + high) / 2, low, high)
    return Result(
        space=space,
        trials=trials,
        winner=winner,
        section=space.section(trials[winner].values),
        luck=Luck(luck, 0.25),
        comparison=Comparison(score, score, difference, 0),
        importances={"learning_rate": 0.9, "epochs": 0.1},
        samples=(60, 30),
    )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_ahead_is_said_only_of_an_interval_above_zero() -> None:
    assert result(0.01, 0.05).verdict(0.95) == (
        "Trial 1 is ahead of the default tiny: +0.030 (95% interval +0.010 to +0.050) on fold 0, which no trial saw."
    )
    assert result(-0.01, 0.05).verdict(0.95).startswith("Trial 1 is not ahead of the default tiny: +0.020 (95%")
    assert (
        result(-0.05, -0.01).verdict(0.9).startswith("Trial 1 is not ahead of the default tiny but behind it: -0.030")
    )
    assert result(0, 0, gain=-1).verdict(0.95) == "No trial scored above the default: keep tiny as it is."


def test_the_report_has_all_scores_and_the_luck() -> None:
    text = findings.describe(result(-0.01, 0.05), 0.95)
    assert "4 trials: 2 complete, 1 pruned, 1 failed." in text
    assert "| inner folds, out-of-fold (n = 60) | 0.600 | 0.650 | +0.050 |" in text
    assert "| outer fold 0 (n = 30) | 0.700 (95% interval 0.600 to 0.800) | 0.700 (95% interval" in text
    assert "the best one would still score +0.020 above the default" in text
    assert "that is 40% of the winner's gain of +0.050. Luck alone gives at least this gain" in text
    assert "probability of 0.25" in text
    assert "- Trial 3: the loss is nan" in text
    assert "that is all of the winner's gain" in findings.describe(result(0, 1, luck=0.06), 0.95)
    assert "here, no trial scored above it." in findings.describe(result(0, 0, gain=-1), 0.95)


def test_the_files_are_replaced_whole(folder: Path) -> None:
    target = folder / "search/one"
    findings.write(result(0.01, 0.05), target, 0.95)
    assert sorted(path.name for path in target.iterdir()) == [
        "importance.png",
        "search.md",
        "trials.csv",
        "winner.yaml",
    ]
    findings.write(replace(result(0.01, 0.05), importances={}), target, 0.95)
    assert sorted(path.name for path in target.iterdir()) == ["search.md", "trials.csv", "winner.yaml"]
    assert "importance" not in (target / "search.md").read_text()


def test_a_row_per_trial_has_what_was_trained() -> None:
    table = findings.tabulate(result(0, 0.1)).set_index("trial")
    assert table["state"].tolist() == ["complete", "complete", "pruned", "failed"]
    assert table["first_fold_loss"].tolist()[:3] == [0.2, 0.1, 0.5]
    assert table.loc[1, "learning_rate"] == 0.02
    assert table["focal.gamma"].isna().tolist() == [False, False, True, True]
    assert table.loc[0, "learning_rate"] == MODEL.learning_rate


def test_the_section_to_paste_begins_with_the_verdict() -> None:
    found = result(-0.01, 0.05)
    text = findings.snippet(found, 0.95)
    assert text.startswith("# Trial 1 is not ahead of the default tiny: ")
    own = YAML(typ="safe").load(text)["models"]["tiny"]
    assert own["learning_rate"] == 0.02
    assert own["focal"] == {"gamma": 1.0}
    assert "loss" not in own  # as in the template
    assert own["widths"] is None


def test_the_importances_are_bars_with_their_shares() -> None:
    figure: Figure = findings.draw_importances({"learning_rate": 0.9, "epochs": 0.1})
    [axes] = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [0.9, 0.1]  # type: ignore[attr-defined]
    assert [text.get_text() for text in axes.texts] == [" 90%", " 10%"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["learning_rate", "epochs"]
