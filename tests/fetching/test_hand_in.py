"""A submission is checked against the archive, sent once, waited for, and kept beside the run's own score."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.fetching import hand_in
from pipeline.fetching.kaggle_client import Submission
from tests.fixtures import archives

METRICS: dict[str, Any] = {
    "macro_f1": 0.61234,
    "macro_f1_low": 0.58,
    "macro_f1_high": 0.65,
    "samples": 90,
    "confidence": 0.95,
}
RIGHT = "Id,Predicted\nt2,0\nt1,3 27\nt3,25\n"


def never(seconds: float) -> None:
    """Nothing is waited for."""
    pytest.fail(f"waited {seconds} s")


class Account:
    """Kaggle as far as a submission needs it, with what the next listings say of the latest submission."""

    def __init__(self, *states: str) -> None:
        self.states = list(states)
        self.sent: list[str] = []

    def submit(self, file: Path, message: str) -> int:
        assert file.is_file()
        self.sent.append(message)
        return len(self.sent)

    def submissions(self) -> list[Submission]:
        listed = [
            Submission(row, datetime(2024, 5, row, 10, tzinfo=UTC), text, "COMPLETE", "", 0.5, 0.51234)
            for row, text in enumerate(self.sent, 1)
        ]
        if listed and self.states:
            listed[-1] = listed[-1]._replace(status=self.states.pop(0), error="too few rows")
        return listed[::-1]


@pytest.fixture
def submission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A submission in the working folder, for the source beside it."""
    monkeypatch.chdir(tmp_path)
    archives.write_zip(tmp_path / "data/kaggle/competition.zip", archives.competition())
    paths.SUBMISSION.write_text(RIGHT)
    return paths.SUBMISSION


def check(text: str) -> None:
    paths.SUBMISSION.write_text(text)
    hand_in.check_submission(paths.SUBMISSION, paths.source("kaggle"))


@pytest.mark.usefixtures("submission")
def test_a_right_submission_passes() -> None:
    check(RIGHT)


@pytest.mark.usefixtures("submission")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Id,Predicted\nt1,3\nt2,0\nt3,25\n", r"order is not that of sample_submission\.csv.*line 2 is the first"),
        ("Id,Predicted\nt2,0\nt1,3\n", r"1 ids are missing, such as t3: run dvc repro submit"),
        ("Id,Predicted\nt2,0\nt1,3\nt3,1\nx,0\n", r"1 ids are not in sample_submission\.csv, such as x"),
        ("Id,Predicted\nt2,0\nt1,3\nt3,1\nt3,1\n", r"ids occur more than once"),
        ("Id,Predicted\nt2,\nt1,3\nt3, \n", r"2 problems; nothing was sent\n  rows without a label.*\n    t2, t3"),
        (
            "Id,Predicted\nt2,28\nt1,3 3\nt3,0|1\n",
            r"labels that are not ids 0\.\.27, separated by blanks\n    t2 \('28'\)",
        ),
        ("Id,Label\nt2,0\nt1,3\nt3,1\n", r"begins with 'Id,Label' instead of 'Id,Predicted'"),
        ("Id,Predicted\nt2,0\nt1,3,4\nt3,1\n", r"line 3: 3 values instead of 2"),
        ("", r"begins with '' instead of"),
    ],
)
def test_a_wrong_submission_is_refused_with_what_is_wrong(text: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        check(text)


def test_a_missing_submission_and_a_source_without_a_test_set_are_refused(submission: Path) -> None:
    submission.unlink()
    with pytest.raises(InputError, match=r"submission\.csv is missing: run dvc repro first"):
        hand_in.check_submission(submission, paths.source("kaggle"))
    archives.write_zip(Path("data/kaggle/competition.zip"), archives.competition(test=()))
    with pytest.raises(InputError, match=r"has no sample_submission\.csv"):
        hand_in.check_submission(submission, paths.source("kaggle"))


def test_the_message_is_made_of_the_run(submission: Path) -> None:
    message = hand_in.describe_run(METRICS, ["cbam-384", "forest"], submission)
    assert message.startswith("cbam-384 + forest; cross-validated macro-F1 0.612 (95% 0.580 to 0.650, n 90); ")
    assert message.endswith(f"not under git; {hand_in.file_mark(submission)}")
    assert hand_in.describe_run(METRICS, ["m" * 20] * 30, submission).startswith("30 models; ")


def test_a_submission_is_waited_for(submission: Path) -> None:
    account, pauses = Account("PENDING", "PENDING", "COMPLETE"), list[float]()
    found = hand_in.hand_in(account, submission, "message", again=False, sleep=pauses.append)
    assert (found.public, found.private, found.number) == (0.5, 0.51234, 1)
    assert pauses == [hand_in.POLL_S] * 2


def test_the_same_file_is_sent_once_unless_asked_for(submission: Path) -> None:
    account = Account()
    message = hand_in.describe_run(METRICS, ["forest"], submission)
    for _ in range(2):
        assert hand_in.hand_in(account, submission, message, again=False, sleep=never).number == 1
    assert hand_in.hand_in(account, submission, message, again=True, sleep=never).number == 2
    submission.write_text(RIGHT.replace("t2,0", "t2,1"))
    other = hand_in.describe_run(METRICS, ["forest"], submission)
    assert hand_in.hand_in(account, submission, other, again=False, sleep=never).number == 3


def test_a_submission_that_cannot_be_scored_or_takes_too_long_is_reported(submission: Path) -> None:
    with pytest.raises(InputError, match=r"cannot score submission\.csv \(too few rows\)"):
        hand_in.hand_in(Account("ERROR"), submission, "message", again=False, sleep=never)
    account, pauses = Account(*["PENDING"] * 100), list[float]()
    with pytest.raises(InputError, match=r"not scored the submission after 10 minutes: run the same command again"):
        hand_in.hand_in(account, submission, "message", again=False, sleep=pauses.append)
    assert sum(pauses) == 600


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, r"^metrics\.json is missing: run dvc repro first"),
        ("<<<<<<< HEAD", r"^metrics\.json is damaged \(.*\): run dvc repro score"),
        ("3", r"^metrics\.json is damaged \(.*\): run dvc repro score"),
        (
            '{"macro_f1": 0.5, "samples": 3, "confidence": 0.95}',
            r"^metrics\.json lacks macro_f1_high, macro_f1_low: run",
        ),
    ],
)
def test_metrics_of_another_kind_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        paths.METRICS.write_text(text)
    with pytest.raises(InputError, match=expected):
        hand_in.read_metrics()


def test_scores_are_kept_once_per_submission_with_what_was_foretold(submission: Path) -> None:
    message = f"forest; cross-validated; commit 0123456789ab with changes; {hand_in.file_mark(submission)}"
    found = Submission(7, datetime(2024, 5, 1, 10, tzinfo=UTC), message, "COMPLETE", "", 0.5, None)
    for private in (None, 0.51234):
        hand_in.record(found._replace(private=private), METRICS)
    hand_in.record(found._replace(number=8, public=None, private=None), METRICS)
    table = pd.read_csv(paths.KAGGLE_SCORES)
    assert table["submission"].tolist() == [7, 8]
    first = table.iloc[0]
    assert (first["time"], first["commit"]) == ("2024-05-01 10:00", "0123456789ab with changes")
    assert (first["macro_f1"], first["macro_f1_low"], first["macro_f1_high"]) == (0.6123, 0.58, 0.65)
    assert (first["public"], first["private"]) == (0.5, 0.51234)
    assert table.iloc[1][["public", "private"]].isna().all()
    text = hand_in.describe(found, METRICS)
    assert text == "Kaggle's macro-F1: public 0.50000, private not shown; cross-validated 0.612 (0.580 to 0.650)"


def test_a_damaged_table_of_scores_is_not_overwritten(submission: Path) -> None:
    paths.KAGGLE_SCORES.parent.mkdir()
    paths.KAGGLE_SCORES.write_text("my notes\n")
    found = Submission(7, datetime(2024, 5, 1, 10, tzinfo=UTC), submission.name, "COMPLETE", "", 0.5, 0.5)
    with pytest.raises(InputError, match=r"kaggle-scores\.csv is damaged .*: correct it, or move it away"):
        hand_in.record(found, METRICS)
    assert paths.KAGGLE_SCORES.read_text() == "my notes\n"
