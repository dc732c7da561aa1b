"""The submission: a row per test sample, in the order that the scorer expects."""

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
from pipeline.stages import submit
from tests.fixtures.competition import prepare, run_the_rest


@pytest.mark.usefixtures("finished_run")
def test_the_submission_keeps_the_order_of_the_index_and_leaves_no_row_empty() -> None:
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


@pytest.mark.usefixtures("finished_run")
def test_a_submission_of_other_samples_is_refused() -> None:
    paths.SUBMISSION.unlink()
    index = pd.read_csv(paths.packed_index("one"), dtype=str, keep_default_na=False)
    index.loc[len(index) - 1, "id"] = "new"
    index.to_csv(paths.packed_index("one"), index=False)
    with pytest.raises(InputError, match=r"blend/test\.npz.*run tta and ensemble again"):
        submit.main()
    assert not paths.SUBMISSION.exists()


def test_without_a_test_set_everything_else_is_made_and_one_sentence_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(test=0)
    metrics = run_the_rest()
    assert paths.SUBMISSION.read_text() == "Id,Predicted\n"
    assert "data/one has no test set (sample_submission.csv), so submission.csv has no rows" in capsys.readouterr().err
    assert metrics["macro_f1"] > 0
    assert "expected_test_low" not in metrics
    summary.main([])
    printed = capsys.readouterr().out
    assert "none: data/one has no test set" in printed
    assert "expected" not in printed
