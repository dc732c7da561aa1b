"""How long each stage took when it last ran here: a log beside the run, which nothing of the run depends on."""

import csv
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TIMES = Path("logs/times.csv")
"""A line per finished stage: its name, its cell of the matrix, seconds; the last one counts."""

STAGES = "pipeline.stages."


@contextmanager
def timed() -> Iterator[None]:
    """Log how long the block takes if the program is a stage and the block succeeds."""
    began = time.monotonic()
    yield
    specification = sys.modules["__main__"].__spec__
    if specification is None or not specification.name.startswith(STAGES):
        return
    TIMES.parent.mkdir(exist_ok=True)
    # One write to the end of the file: stages that end at the same time do not tear each other's lines.
    with TIMES.open("a", encoding="utf-8", newline="") as file:
        stage = specification.name.removeprefix(STAGES)
        csv.writer(file).writerow([stage, " ".join(sys.argv[1:]), f"{time.monotonic() - began:.1f}"])


def read_times() -> dict[str, dict[str, float]]:
    """Seconds by stage and cell, in the order in which the stages first ran; nothing where no log is."""
    times: dict[str, dict[str, float]] = {}
    if TIMES.exists():
        with TIMES.open(encoding="utf-8", newline="") as file:
            for stage, cell, seconds in csv.reader(file):
                times.setdefault(stage, {})[cell] = float(seconds)
    return times
