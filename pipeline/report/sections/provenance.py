"""What made this run: parameters, versions, code."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from pipeline import __version__
from pipeline.clock import read_times
from pipeline.report.blocks import Cell, Listing, Section, Table
from pipeline.report.run import Run
from pipeline.report.words import counted, numbers

LIBRARIES = (
    "torch",
    "timm",
    "albumentations",
    "opencv-python-headless",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "dvc",
)


def provenance_section(run: Run) -> Section:
    """Parameters, versions, code revision."""
    rows = [("code", code_revision()), ("hpa-atlas", __version__), ("Python", platform.python_version())]
    rows += [(library, version(library)) for library in LIBRARIES]
    text = Path("params.yaml").read_text(encoding="utf-8")
    models, folds = len(run.params.models), len(run.params.folds.ids)
    return Section(
        "run",
        "Run",
        [
            Table(
                ("what", "version"),
                [[Cell(what), Cell(found)] for what, found in rows],
                "With these versions and the parameters below, the same data give the same figures.",
            ),
            times_table(read_times()),
            Listing(
                "params.yaml",
                text,
                f"{counted(models, 'model')} on {counted(folds, 'fold')}; every value that can be tuned.",
            ),
        ],
    )


def times_table(times: dict[str, dict[str, float]]) -> Table:
    """How long each stage took, the report left out, which is not finished yet."""
    totals = {stage: sum(cells.values()) for stage, cells in times.items() if stage != "report"}
    rows = [
        [Cell(stage), *numbers([len(times[stage])], decimals=0), *numbers([seconds], decimals=1)]
        for stage, seconds in totals.items()
    ]
    caption = "No times are known: the stages ran elsewhere."
    if totals:
        longest = max(totals, key=totals.__getitem__)
        total = sum(totals.values())
        caption = (
            f"When each last ran on this machine: {total / 60:,.1f} minutes in all, {totals[longest] / total:.0%} of "
            f"them in “{longest}”."
        )
    return Table(("stage", "cells", "seconds"), rows, caption)


def code_revision() -> str:
    """The commit that the working folder stands at, and whether its code was changed since."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD").strip()
        changed = _git("status", "--porcelain", "--", "pipeline", "params.yaml", "dvc.yaml")
    except (OSError, subprocess.CalledProcessError):
        return "not under git"
    return f"commit {commit}" + (" with changes" if changed else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout
