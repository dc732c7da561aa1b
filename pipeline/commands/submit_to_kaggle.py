"""Hand in submission.csv: ``python -m pipeline submit-to-kaggle``.

Checks it against the archive, sends it with a message made of the run, waits, prints Kaggle's scores, and adds them to
submissions/kaggle-scores.csv, which the report shows. The same file is not sent twice unless asked for.
"""

import argparse
import time
from collections.abc import Sequence

from pipeline.core import params, paths
from pipeline.core.errors import InputError
from pipeline.fetching import hand_in
from pipeline.fetching.kaggle_client import COMPETITION, KaggleAccount
from pipeline.reporting.blocks import SIMULATED


def main(arguments: Sequence[str]) -> None:
    """Check, send, wait and print."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline submit-to-kaggle",
        description="Check submission.csv, hand it in, print Kaggle's scores and keep them.",
    )
    parser.add_argument("--competition", default=COMPETITION, metavar="SLUG", help="(%(default)s)")
    parser.add_argument("--check", action="store_true", help="check the file and send nothing")
    parser.add_argument("--again", action="store_true", help="send it even if the same file was sent before")
    parsed = parser.parse_args(arguments)
    settings = params.load()
    source = settings.data.sources[0]
    if source == SIMULATED:
        raise InputError(f"the test set is that of the source {SIMULATED}, which is simulated: nothing to hand in")
    hand_in.check_submission(paths.SUBMISSION, paths.source(source))
    metrics = hand_in.read_metrics()
    message = hand_in.describe_run(metrics, list(settings.models), paths.SUBMISSION)
    if parsed.check:
        print(f"{paths.SUBMISSION} is right; its message would be: {message}")
        return
    found = hand_in.hand_in(
        KaggleAccount(parsed.competition), paths.SUBMISSION, message, again=parsed.again, sleep=time.sleep
    )
    hand_in.record(found, metrics)
    print(hand_in.describe(found, metrics))
    print(f"kept in {paths.KAGGLE_SCORES}; dvc repro report shows it")
