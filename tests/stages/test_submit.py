"""The submission, and the summary of a run."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.commands import summary
from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.core.labels import format_target, parse_target, target_matrix
from pipeline.evaluation import result_files
from pipeline.sources.packed_array import read_index
from pipeline.stages import ensemble, submit
from tests.fixtures.competition import blend_ids, prepare, run_the_rest, write_truth


@pytest.fixture
def test_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A run of two sources up to the end of tta, in a folder of its own; the truth of its test set, in its order."""
    monkeypatch.chdir(tmp_path)
    return prepare()


@pytest.mark.usefixtures("test_targets")
def test_the_submission_keeps_the_order_of_the_index_and_leaves_no_row_empty() -> None:
    ensemble.main()
    submit.main()
    submission = pd.read_csv(paths.SUBMISSION, dtype=str, keep_default_na=False)
    assert list(submission.columns) == ["Id", "Predicted"]
    index = read_index("one")
    expected = index.loc[index["split"] == "test", "id"].tolist()
    assert submission["Id"].tolist() == expected != sorted(expected)
    np.testing.assert_array_equal(
        target_matrix(submission["Predicted"]), result_files.load_blend(result_files.TEST).decisions
    )
    for predicted in submission["Predicted"]:
        assert predicted == format_target(parse_target(predicted)), "ascending"


@pytest.mark.usefixtures("test_targets")
def test_a_submission_of_other_samples_is_refused() -> None:
    ensemble.main()
    index = pd.read_csv(paths.packed("one") / "index.csv", dtype=str, keep_default_na=False)
    index.loc[len(index) - 1, "id"] = "new"
    index.to_csv(paths.packed("one") / "index.csv", index=False)
    with pytest.raises(InputError, match=r"blend/test\.npz.*run tta and ensemble again"):
        submit.main()
    assert not paths.SUBMISSION.exists()


def test_the_summary_names_the_files_and_the_scores(
    test_targets: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_truth(blend_ids(), test_targets)
    metrics = run_the_rest()
    capsys.readouterr()
    summary.main()
    printed = capsys.readouterr().out
    for expected in (
        "submission.csv",
        "metrics.json",
        f"{metrics['macro_f1']:.3f}, 95% interval {metrics['macro_f1_low']:.3f} to {metrics['macro_f1_high']:.3f}",
        "120 held-out samples",
        *(f"{fold:.3f}" for fold in metrics["folds"].values()),
        f"{metrics['test']['macro_f1']:.3f}",
        f"{metrics['macro_f1_present']:.3f} over the 6 labels",
    ):
        assert expected in printed


def test_a_summary_before_the_run_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"metrics\.json is missing"):
        summary.main()
