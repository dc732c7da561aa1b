"""The benchmarks of folds, interval coverage and image-level folds, at toy size."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import coverage, folds, leak, leak_network
from pipeline.core.labels import LABELS, format_target
from pipeline.core.params import Simulation, load
from pipeline.data.fold_assignment import assign_folds, leaked_share
from pipeline.data.fold_table import read_folds

SMALL = Simulation(seed=3, train=36, test=12, size=64, fields_per_antibody=3.0, near_duplicates=0.0, test_exposure=0.75)


def test_folds_are_compared_with_other_splitters() -> None:
    rows = {row.pop("method"): row for row in folds.compare(*folds.draw_labels(400, seed=0)).to_dict("records")}
    assert rows["this project"]["leaked"] == 0
    assert rows["this project, without groups"]["leaked"] > 0.5
    assert rows["this project"]["mean"] < rows["best of 50 random"]["mean"]


def test_deviations_of_a_hand_worked_case() -> None:
    truth = np.zeros((10, len(LABELS)), dtype=np.bool_)
    truth[:, 0] = True
    truth[[0, 1, 2, 3, 4], 1] = True
    assigned = np.array([0, 0, 1, 2, 3, 4, 1, 2, 3, 4])
    # Label 1 has 2, 1, 1, 1, 0 positives around 1, label 0 has two in every fold.
    assert folds.deviations(truth[:, :2], assigned).tolist() == [0, 1]


def test_coverage_of_right_and_wrong_values() -> None:
    case = coverage.Case("toy", 40, 0.2, 0.6)
    known = coverage.true_f1(case)
    # No interval contains an impossible F1; most contain the true one.
    assert not coverage.covers(1, case, known + 2)[1].any()
    macro, labels = coverage.covers(1, case, known)
    assert macro
    assert labels.mean() > 0.7


def test_fields_of_an_antibody_are_similar_and_image_level_folds_score_higher() -> None:
    halves = leak.simulate(SMALL)
    train = halves["train"]
    assert np.isfinite(train.features).all()
    spread = train.features.std(axis=0) + 1e-9
    distance = np.abs((train.features[:, None] - train.features[None]) / spread).mean(axis=2)
    same = train.groups[:, None] == train.groups[None]
    apart = ~np.eye(len(same), dtype=np.bool_)
    assert distance[same & apart].mean() < 0.7 * distance[~same].mean()
    rows = {split: leak.cross_validate(train, halves["test"], split, seed=0) for split in leak.SPLITS}
    assert float(str(rows["image-level"]["cross-validated"])) > float(str(rows["grouped"]["cross-validated"]))


def test_networks_are_trained_again_on_the_same_samples_in_folds_that_split_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = Path("params.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(committed)
    (tmp_path / "data/packed").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    truth, groups = folds.draw_labels(90, seed=0)
    targets = [format_target(np.flatnonzero(row).tolist()) for row in truth]
    table = pd.DataFrame({"id": [f"s{row:02}" for row in range(90)], "source": "sample", "row": range(90)})
    table = table.assign(target=targets, group=groups, fold=np.array([4, 7])[assign_folds(truth, groups, 2, seed=0)])
    split = leak_network.image_level(table)
    assert sorted(split["fold"].unique()) == [4, 7]
    assert leaked_share(groups, split["fold"].to_numpy()) > 0.5
    leak_network.prepare(tmp_path / "other", ["cbam-384"], split)
    assert (tmp_path / "other/data/packed").is_dir()
    monkeypatch.chdir("other")
    assert list(load().models) == ["cbam-384"]
    assert read_folds()["fold"].tolist() == split["fold"].tolist()


def test_a_benchmark_ends_in_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["folds"])
    monkeypatch.setattr(folds, "SIMULATED", 300)
    folds.main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["this project"]["leaked"] == 0
