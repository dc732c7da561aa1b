"""Hand in a submission: check it, send it once, wait for its scores, and keep them beside the run's own."""

import csv
import json
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

from pipeline.core import paths
from pipeline.core.errors import InputError, Problem, raise_problems
from pipeline.core.labels import LABELS, parse_target
from pipeline.core.progress import say
from pipeline.core.revision import code_revision
from pipeline.evaluation.leaderboard import add_scores
from pipeline.fetching.kaggle_client import Submission
from pipeline.sources.archive import open_archive
from pipeline.sources.samples import list_samples

HEADER = ["Id", "Predicted"]
LONGEST_NAMES = 200
"""Characters of the models' names in a message, which Kaggle shows in one line."""
SCORES = {"macro_f1", "macro_f1_low", "macro_f1_high", "confidence", "samples"}
"""What a message and the table of scores take from metrics.json."""
POLL_S = 10.0
POLLS = 60
"""How often Kaggle is asked whether a submission is scored; scoring usually takes less than a minute."""


class Account(Protocol):
    """What is needed of `kaggle_client.KaggleAccount`."""

    def submit(self, file: Path, message: str) -> int:
        """Hand in a submission; returns its number."""

    def submissions(self) -> list[Submission]:
        """The latest submissions, newest first."""


def check_submission(path: Path, source: Path) -> None:
    """Check a submission against the archive: Kaggle scores by position, and a row without a label counts as wrong.

    Args:
        path: the submission.
        source: folder of the source with sample_submission.csv.

    Raises:
        InputError: the rows are not those of sample_submission.csv in its order, or one has no labels or wrong ones;
            all problems are in the message.
    """
    with open_archive(source) as archive:
        samples, problems = list_samples(archive)
    raise_problems(source, problems, "nothing was sent")
    expected = samples.loc[samples["split"] == "test", "id"].tolist()
    if not expected:
        raise InputError(f"{source} has no sample_submission.csv, so there is nothing to hand in")
    rows = _read(path)
    if [row[0] for row in rows] != expected:
        raise InputError(f"{path}: {_difference([row[0] for row in rows], expected)}: run dvc repro submit")
    wrong = [problem for row in rows if (problem := _label_problem(*row))]
    raise_problems(path, wrong, "nothing was sent")


def describe_run(metrics: dict[str, Any], models: Sequence[str], submission: Path) -> str:
    """A message for Kaggle: models, cross-validated score with interval, commit, and digest of the file."""
    names = " + ".join(models)
    names = names if len(names) <= LONGEST_NAMES else f"{len(models)} models"
    return (
        f"{names}; cross-validated macro-F1 {metrics['macro_f1']:.3f} ({metrics['confidence']:.0%} "
        f"{metrics['macro_f1_low']:.3f} to {metrics['macro_f1_high']:.3f}, n {metrics['samples']}); {code_revision()}; "
        f"{file_mark(submission)}"
    )


def file_mark(path: Path) -> str:
    """A few words that tell files apart, by which a submission is recognised among earlier ones."""
    return f"file {blake2b(path.read_bytes(), digest_size=6).hexdigest()}"


def hand_in(account: Account, path: Path, message: str, *, again: bool, sleep: Callable[[float], object]) -> Submission:
    """Send a submission, unless the same file was sent before, and wait until it is scored.

    Args:
        account: where to.
        path: the submission.
        message: from `describe_run`.
        again: send it even if the same file was sent before.
        sleep: waits so many seconds.

    Raises:
        InputError: Kaggle does not take it, cannot score it, or needs too long.
    """
    mark = file_mark(path)
    earlier = [one for one in account.submissions() if mark in one.message and one.status != "ERROR"]
    if earlier and not again:
        number = earlier[0].number
        say(f"the same file was handed in on {earlier[0].time:%Y-%m-%d %H:%M} UTC, so it is not sent again (--again)")
    else:
        number = account.submit(path, message)
        say(f"sent: {message}")
    for _ in range(POLLS):
        found = next((one for one in account.submissions() if one.number == number), None)
        if found and found.status == "ERROR":
            raise InputError(f"Kaggle cannot score {path} ({found.error or 'no reason given'})")
        if found and found.status == "COMPLETE":
            return found
        sleep(POLL_S)
    raise InputError(
        f"Kaggle has not scored the submission after {POLLS * POLL_S / 60:.0f} minutes: run the same command again "
        "later, which does not send it again"
    )


def record(found: Submission, metrics: dict[str, Any]) -> None:
    """Keep the scores of a submission beside the cross-validated ones."""
    # From the message, which was written when the file was sent; the code may have changed since.
    commit = next((part for part in found.message.split("; ") if part.startswith(("commit ", "not under"))), "")
    add_scores(
        {
            "submission": found.number,
            "time": f"{found.time:%Y-%m-%d %H:%M}",
            "commit": commit.removeprefix("commit "),
            "message": found.message,
            **{name: round(metrics[name], 4) for name in ("macro_f1", "macro_f1_low", "macro_f1_high")},
            "samples": metrics["samples"],
            "public": found.public,
            "private": found.private,
        }
    )


def describe(found: Submission, metrics: dict[str, Any]) -> str:
    """Kaggle's scores beside the cross-validated one."""
    shown = {"public": found.public, "private": found.private}
    scores = ", ".join(f"{name} {'not shown' if score is None else f'{score:.5f}'}" for name, score in shown.items())
    return (
        f"Kaggle's macro-F1: {scores}; cross-validated {metrics['macro_f1']:.3f} "
        f"({metrics['macro_f1_low']:.3f} to {metrics['macro_f1_high']:.3f})"
    )


def read_metrics() -> dict[str, Any]:
    """The scores of the finished run.

    Raises:
        InputError: there are none.
    """
    try:
        metrics: dict[str, Any] = json.loads(paths.METRICS.read_text(encoding="utf-8"))
        absent = sorted(SCORES - set(metrics))
    except FileNotFoundError:
        raise InputError(f"{paths.METRICS} is missing: run dvc repro first") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"{paths.METRICS} is damaged ({error}): run dvc repro score") from None
    if absent:
        raise InputError(f"{paths.METRICS} lacks {', '.join(absent)}: run dvc repro score")
    return metrics


def _read(path: Path) -> list[tuple[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run dvc repro first") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a table ({error}): run dvc repro submit") from None
    if header != HEADER:
        raise InputError(
            f"{path} begins with {','.join(header)!r} instead of {','.join(HEADER)!r}: run dvc repro submit"
        )
    if ragged := next((number for number, row in enumerate(rows, 2) if len(row) != len(HEADER)), None):
        raise InputError(f"{path}, line {ragged}: {len(rows[ragged - 2])} values instead of 2: run dvc repro submit")
    return [(row[0], row[1]) for row in rows]


def _difference(found: Sequence[str], expected: Sequence[str]) -> str:
    """How two lists of ids differ."""
    lacking, other = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if lacking or other:
        parts = [f"{len(lacking):,} ids are missing, such as {lacking[0]}"] if lacking else []
        parts += [f"{len(other):,} ids are not in sample_submission.csv, such as {other[0]}"] if other else []
        return " and ".join(parts)
    if len(found) != len(expected):
        return "ids occur more than once"
    number = next(row for row, pair in enumerate(zip(found, expected, strict=True), 2) if pair[0] != pair[1])
    return (
        f"the order is not that of sample_submission.csv, by which Kaggle scores; line {number} is the first to differ"
    )


def _label_problem(id_: str, text: str) -> Problem | None:
    if not text.strip():
        return Problem(id_, "rows without a label: give each at least one")
    try:
        parse_target(text)
    except InputError:
        return Problem(f"{id_} ({text!r})", f"labels that are not ids 0..{len(LABELS) - 1}, separated by blanks")
    return None
