"""Two runs side by side: the statistics against brute force, and reading runs from folders and DVC's cache."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pygit2 import GitError

from pipeline.commands.compare import ScoredRun, compare, main, read_scored_run
from pipeline.core.errors import InputError
from pipeline.core.labels import LABELS, format_target
from pipeline.core.params import Score
from pipeline.evaluation.intervals import difference, f1_resamples
from pipeline.evaluation.metrics import Bools, f1_by_label, macro_f1
from pipeline.evaluation.prediction_files import write_arrays

SETTINGS = Score(resamples=100, confidence=0.95, seed=0)
COMMITTED = Path("params.yaml").read_text()


def truth_of(samples: int, seed: int = 0) -> Bools:
    truth = np.random.default_rng(seed).random((samples, len(LABELS))) < 0.2
    truth[:, 0] |= ~truth.any(axis=1)
    return truth


def decided(truth: Bools, errors: float, seed: int = 1) -> Bools:
    """The truth with a share of its entries inverted."""
    return np.asarray(truth ^ (np.random.default_rng(seed).random(truth.shape) < errors))


def run_of(name: str, truth: Bools, decisions: Bools, first_id: int = 0) -> ScoredRun:
    samples = pd.DataFrame(
        {
            "target": [format_target(np.flatnonzero(row).tolist()) for row in truth],
            "group": [f"g{row // 3}" for row in range(first_id, first_id + len(truth))],
            "fold": [str(row // 3 % 3) for row in range(first_id, first_id + len(truth))],
        },
        index=pd.Index([f"id{row}" for row in range(first_id, first_id + len(truth))], name="id"),
    )
    return ScoredRun(name, samples, decisions)


def write_run(folder: Path, run: ScoredRun) -> None:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    run.samples.reset_index().to_csv(folder / "data/folds.csv", index=False)
    (folder / "blend").mkdir(exist_ok=True)
    ids = run.samples.index.to_numpy(dtype=np.str_)
    probabilities = run.decisions.astype(np.float32)
    write_arrays(
        folder / "blend/held_out.npz", {"ids": ids, "probabilities": probabilities, "decisions": run.decisions}
    )


def test_the_difference_is_that_of_scores_on_the_same_resampled_groups() -> None:
    truth = truth_of(90)
    groups = (np.arange(90) // 3).astype(np.str_)
    first, second = decided(truth, 0.2), decided(truth, 0.1, seed=2)
    found, table = difference(first, second, truth, groups, SETTINGS)
    assert found.estimate == pytest.approx(macro_f1(second, truth) - macro_f1(first, truth))
    np.testing.assert_allclose(table["difference"], f1_by_label(second, truth) - f1_by_label(first, truth))
    names = np.unique(groups)
    changes = []
    for drawn in np.random.default_rng(0).integers(len(names), size=(100, len(names))):
        rows = np.concatenate([np.flatnonzero(groups == names[group]) for group in drawn])
        changes.append(macro_f1(second[rows], truth[rows]) - macro_f1(first[rows], truth[rows]))
    width = np.diff(np.quantile(changes, (0.025, 0.975)))
    assert found.high - found.low == pytest.approx(float(width[0]))


def test_pairing_narrows_the_interval() -> None:
    truth = truth_of(150)
    groups = (np.arange(150) // 3).astype(np.str_)
    first = decided(truth, 0.2)
    second = first ^ (np.random.default_rng(3).random(truth.shape) < 0.01)
    found, _ = difference(first, second, truth, groups, SETTINGS)
    alone = [
        f1_resamples(way, truth, groups, resamples=100, seed=seed).mean(axis=1)
        for seed, way in enumerate((first, second))
    ]
    assert found.high - found.low < 0.7 * float(np.diff(np.quantile(alone[1] - alone[0], (0.025, 0.975)))[0])


def test_a_run_is_no_better_than_itself_and_the_order_only_turns_the_sign() -> None:
    truth = truth_of(90)
    worse, better = run_of("a", truth, decided(truth, 0.2)), run_of("b", truth, decided(truth, 0.05))
    same, _, words = compare(worse, worse, SETTINGS)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)
    assert "do not differ significantly" in words
    forth, _, words = compare(worse, better, SETTINGS)
    back, _, words_back = compare(better, worse, SETTINGS)
    assert (back.estimate, back.low, back.high) == pytest.approx((-forth.estimate, -forth.high, -forth.low))
    assert words == words_back
    assert words.startswith(f"b is better by {forth.estimate:.3f} in macro-F1 (95% interval {forth.low:.3f} to")
    assert "90 samples, 30 groups" in words


def test_only_what_both_held_out_is_compared_whatever_its_order() -> None:
    truth = truth_of(120)
    first, second = decided(truth, 0.2), decided(truth, 0.1, seed=2)
    one, other = run_of("a", truth[:90], first[:90]), run_of("b", truth[30:], second[30:], first_id=30)
    shuffled = np.random.default_rng(0).permutation(90)
    other = ScoredRun("b", other.samples.iloc[shuffled], other.decisions[shuffled])
    found, _, words = compare(one, other, SETTINGS)
    assert found.estimate == pytest.approx(macro_f1(second[30:90], truth[30:90]) - macro_f1(first[30:90], truth[30:90]))
    assert "60 samples that are in only one of the two runs are left out." in words


def test_what_a_further_source_brought_is_a_row_for_each_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = truth_of(120)
    one = run_of("a", truth[:60], decided(truth[:60], 0.2))
    both = run_of("b", truth, np.concatenate([decided(truth[:60], 0.1, seed=2), truth[60:]]))
    found, table, words = compare(one, both, SETTINGS)
    assert table["name"].tolist() == list(LABELS)
    np.testing.assert_array_equal(table["positives"], truth[:60].sum(axis=0))
    np.testing.assert_array_equal(table["only_first"], 0)
    np.testing.assert_array_equal(table["only_second"], truth[60:].sum(axis=0))
    assert "60 samples that are in only one" in words
    # The further source's own samples are no part of the comparison, however well they are decided.
    worse = run_of("b", truth, np.concatenate([decided(truth[:60], 0.1, seed=2), ~truth[60:]]))
    assert compare(one, worse, SETTINGS)[0] == found
    assert "only_second" not in compare(one, one, SETTINGS)[1]
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(COMMITTED)
    for run in (one, both):
        write_run(Path(run.name), run)
    main(["a", "b", "--out", "tables/brought.csv"])
    written = pd.read_csv("tables/brought.csv")
    assert list(written.columns) == list(table.columns)
    np.testing.assert_allclose(written["difference"], table["difference"])
    assert " only_second" in capsys.readouterr().out
    with pytest.raises(InputError, match="--out tables is a folder: name a file"):
        main(["a", "b", "--out", "tables"])


def test_runs_that_cannot_be_compared_are_refused() -> None:
    truth = truth_of(30)
    one = run_of("a", truth, truth)
    with pytest.raises(InputError, match="a and b have no sample in common"):
        compare(one, run_of("b", truth, truth, first_id=30), SETTINGS)
    with pytest.raises(InputError, match="different true labels for 30 samples, such as id0"):
        compare(one, run_of("b", ~truth, truth), SETTINGS)


def test_other_folds_are_named() -> None:
    truth = truth_of(30)
    one, other = run_of("a", truth, truth), run_of("b", truth, truth)
    other.samples["fold"] = "0"
    assert "Their folds differ" in compare(one, other, SETTINGS)[2]


def test_the_interval_is_said_not_to_contain_the_variation_between_seeds() -> None:
    truth = truth_of(90)
    worse, better = run_of("a", truth, decided(truth, 0.2)), run_of("b", truth, decided(truth, 0.05))
    for other in (worse, better):
        words = " ".join(compare(worse, other, SETTINGS)[2].split())
        assert "Each run was trained with one seed" in words
        assert "the interval does not include the variation between seeds" in words


def git(*arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments], check=True, capture_output=True)


def dvc(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], check=True, capture_output=True)


def test_revisions_are_read_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(COMMITTED)
    git("init", "-q")
    dvc("init", "-q")
    truth = truth_of(60)
    for tag, errors in (("before", 0.2), ("after", 0.05)):
        write_run(Path(), run_of(tag, truth, decided(truth, errors)))
        dvc("add", "-q", "data/folds.csv", "blend")
        git("add", ".")
        git("commit", "-qm", tag)
        git("tag", tag)
    assert np.array_equal(read_scored_run("before").decisions, decided(truth, 0.2))
    main(["before"])
    by_workspace = capsys.readouterr().out
    main(["before", "after"])
    by_revision = capsys.readouterr().out
    assert by_revision == by_workspace.replace("\n. is better", "\nafter is better")
    assert "after is better by" in by_revision
    with pytest.raises(InputError, match=r"nonsense: data/folds\.csv of that revision cannot be read"):
        read_scored_run("nonsense")
    for file in Path(".dvc/cache").rglob("*"):
        if file.is_file():
            file.unlink()
    with pytest.raises(InputError, match=r"before: data/folds\.csv of that revision cannot be read.*dvc repro"):
        read_scored_run("before")


def test_another_user_s_checkout_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> bytes:
        raise GitError("repository path '/data/project' is not owned by current user")

    monkeypatch.setattr("dvc.api.read", refuse)
    with pytest.raises(
        InputError, match=r"HEAD: .* cannot be read \(repository path .* is not owned by current user\)"
    ):
        read_scored_run("HEAD")


@pytest.mark.parametrize("damage", ["data/folds.csv", "blend/held_out.npz"])
def test_a_damaged_folder_is_named(tmp_path: Path, damage: str) -> None:
    truth = truth_of(30)
    write_run(tmp_path, run_of("a", truth, truth))
    assert np.array_equal(read_scored_run(str(tmp_path)).decisions, truth)
    (tmp_path / damage).write_text("nothing\n")
    with pytest.raises(InputError, match=f"{tmp_path}.*is damaged.*dvc repro"):
        read_scored_run(str(tmp_path))
    (tmp_path / damage).unlink()
    with pytest.raises(InputError, match=f"{tmp_path}.*is missing.*dvc repro"):
        read_scored_run(str(tmp_path))
