"""The submission that uses the test leak: other labels where a further source has them, and nothing else changed."""

import json
from pathlib import Path

import pandas as pd
import pytest

from pipeline.commands import correct_test_leak, summary
from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.data.leak import COLUMNS
from pipeline.sources.packed_array import read_index
from pipeline.stages import folds, score, submit

LEAKED = 3


@pytest.fixture
def leaking_run(finished_run: Path) -> Path:
    """A finished run of two sources, of which the second one also has three of the first one's test images."""
    first, second = read_index("one"), read_index("two")
    tests = first.index[first["split"] == "test"][:LEAKED]
    for number, row in enumerate(tests):
        hash_ = f"{(2**64 - 1) << 64 * number:064x}"
        first.loc[row, "phash"] = second.loc[number, "phash"] = hash_
        for channel in CHANNELS:
            first.loc[row, f"digest_{channel}"] = second.loc[number, f"digest_{channel}"] = f"file {number}"
    # The first test image once more: in other files, with other labels.
    second.loc[LEAKED, "phash"] = f"{(2**64 - 1) ^ 7:064x}"
    second.loc[LEAKED, "target"] = "27"
    for source, index in (("one", first), ("two", second)):
        index.to_csv(paths.packed_index(source), index=False)
    folds.main()
    with pytest.MonkeyPatch.context() as patch:  # as if nobody looked for it
        patch.setattr(score, "find_leak", lambda _pairs, _first: pd.DataFrame(columns=COLUMNS))
        score.main()
    paths.METRICS.rename("before.json")
    for stage in (score, submit):
        stage.main()
    return finished_run


@pytest.mark.usefixtures("finished_run")
def test_without_a_leak_nothing_is_said_or_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert pd.read_csv(paths.TEST_LEAK).empty
    assert "test_leak" not in json.loads(paths.METRICS.read_text())
    summary.main([])
    assert "test leak" not in capsys.readouterr().out
    with pytest.raises(InputError, match=r"test-leak\.csv lists no test sample: .* nothing was written"):
        correct_test_leak.main([])
    assert not paths.LEAK_CORRECTED.exists()


@pytest.mark.usefixtures("leaking_run")
def test_the_leak_is_reported_and_no_score_profits(capsys: pytest.CaptureFixture[str]) -> None:
    before, after = json.loads(Path("before.json").read_text()), json.loads(paths.METRICS.read_text())
    assert after.pop("test_leak") == {"samples": LEAKED, "of": 25}
    assert after == before
    summary.main([])
    assert "test leak          3 of 25 test samples also stand in a further source" in capsys.readouterr().out
    made = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    correct_test_leak.main([])
    assert {path: path.read_bytes() for path in made} == made
    for stage in (folds, score, submit):  # whoever runs them again with the file there gets the same
        stage.main()
    assert {path: path.read_bytes() for path in made if path.suffix != ".png"} == {
        path: data for path, data in made.items() if path.suffix != ".png"
    }


@pytest.mark.usefixtures("leaking_run")
def test_the_nearest_labels_replace_the_decisions_and_the_rest_is_the_submission(
    capsys: pytest.CaptureFixture[str],
) -> None:
    correct_test_leak.main([])
    assert "3 of 25 test samples have the labels that another source gives" in capsys.readouterr().out
    submission, corrected = (
        pd.read_csv(path, dtype=str, keep_default_na=False) for path in (paths.SUBMISSION, paths.LEAK_CORRECTED)
    )
    assert corrected["Id"].tolist() == submission["Id"].tolist()
    targets = read_index("two")["target"]
    assert corrected["Predicted"][:LEAKED].tolist() == targets[:LEAKED].tolist()
    assert corrected["Predicted"][LEAKED:].tolist() == submission["Predicted"][LEAKED:].tolist()
    leak = pd.read_csv(paths.TEST_LEAK, dtype=str)
    assert len(leak) == LEAKED + 1
    assert leak[leak["test_id"] == submission["Id"][0]]["distance"].tolist() == ["0", "3"]


@pytest.mark.usefixtures("leaking_run")
def test_labels_that_disagree_replace_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    leak = pd.read_csv(paths.TEST_LEAK, dtype=str)
    leak["distance"] = leak["distance"].where(leak["distance"] != "3", "0")
    leak.to_csv(paths.TEST_LEAK, index=False)
    correct_test_leak.main([])
    assert "2 of 25 test samples have the labels" in capsys.readouterr().out
    submission, corrected = (
        pd.read_csv(path, dtype=str, keep_default_na=False) for path in (paths.SUBMISSION, paths.LEAK_CORRECTED)
    )
    assert corrected["Predicted"][0] == submission["Predicted"][0]


@pytest.mark.usefixtures("leaking_run")
def test_samples_that_are_less_alike_than_asked_for_are_not_used() -> None:
    leak = pd.read_csv(paths.TEST_LEAK, dtype=str)
    leak.assign(distance="20").to_csv(paths.TEST_LEAK, index=False)
    with pytest.raises(InputError, match="lists no test sample within 19 bits"):
        correct_test_leak.main(["--bits", "19"])
    correct_test_leak.main(["--bits", "20"])
    assert paths.LEAK_CORRECTED.exists()


@pytest.mark.usefixtures("leaking_run")
@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        (paths.TEST_LEAK, None, r"tables/test-leak\.csv is missing: run dvc repro"),
        (paths.SUBMISSION, None, r"submission\.csv is missing: run dvc repro"),
        (paths.TEST_LEAK, f"{','.join(COLUMNS)}\na,two,b,0,near\n", r"test-leak\.csv is damaged .*: run dvc repro"),
        (paths.TEST_LEAK, f"{','.join(COLUMNS)}\na,two,b,28,3\n", r"test-leak\.csv is damaged .*: run dvc repro"),
        (paths.SUBMISSION, "Id,Label\n", r"submission\.csv is damaged .*: run dvc repro"),
        (paths.SUBMISSION, "Id,Predicted\n", r"lists samples that are not in submission\.csv, such as one-\d+: run"),
    ],
)
def test_a_run_that_does_not_fit_is_refused(path: Path, text: str | None, message: str) -> None:
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        correct_test_leak.main([])
    assert not paths.LEAK_CORRECTED.exists()
