"""The cells of the matrix side by side on Ray, against `dvc repro`: ``python -m benchmarks.cells``.

A clone of this repository packs a small simulated competition, and then runs ``train`` and ``tta`` of its folds twice
from nothing: by `dvc repro`, one cell after the other on all cores, and by `python -m pipeline.commands.train_parallel`, one a core.
A third run, by `dvc repro` with one thread as a cell on Ray has, gives the bytes to compare with.

The last line is JSON: ``serial_over_ray``, ``different_files`` and ``rerun_stages``, those that `dvc repro` would run.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from benchmarks.interleaved import report
from benchmarks.interrupt import clone, differing, digests, reset

SERIAL = ("dvc", "repro", "tta")
RAY = (sys.executable, "-m", "pipeline.commands.train_parallel")
RUNS = (("dvc repro", SERIAL, None), ("dvc repro, one thread", SERIAL, 1), ("side by side", RAY, None))


def run(folder: Path, *command: str, threads: int | None = None) -> tuple[float, str]:
    """Run a command there; return its seconds and what it printed.

    Raises:
        RuntimeError: it failed; what it said is in the message.
    """
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": beside}
    environment.pop("OMP_NUM_THREADS", None)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return time.perf_counter() - started, done.stdout


def lengthen(path: Path, epochs: int) -> None:
    """Make cells of a minute from those of seconds: otherwise their start is all that is measured."""
    yaml = YAML(typ="safe")
    settings: dict[str, Any] = yaml.load(path)
    for model in settings["models"].values():
        model |= {"channels": [32, 64, 128, 256], "size": 96, "epochs": epochs, "evaluate_every": epochs}
    settings["sample"] |= {"train": 240, "test": 60}
    settings["machine"] |= {"workers": "auto", "save_minutes": 5}
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(settings, file)


def main(epochs: int | None = None) -> dict[str, float]:
    """Run it all in a temporary folder, print, and return the figures; without ``epochs``, cells take seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = clone(Path(name) / "project", seed=0)
        if epochs is not None:
            lengthen(folder / "params.yaml", epochs)
        seconds: dict[str, float] = {}
        made: dict[str, dict[str, str]] = {}
        for how, command, threads in RUNS:
            reset(folder)
            run(folder, "dvc", "repro", "folds")
            seconds[how], _ = run(folder, *command, threads=threads)
            made[how] = digests(folder)
        rerun = run(folder, *SERIAL, "--dry")[1].count("Running stage")
    different = {how: differing(found, made["side by side"]) for how, found in made.items()}
    table = pd.DataFrame({"run": list(seconds), "seconds": seconds.values(), "different files": different.values()})
    figures = {
        "serial_over_ray": seconds["dvc repro"] / seconds["side by side"],
        "different_files": different["dvc repro, one thread"],
        "rerun_stages": rerun,
    }
    report(table, figures)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    main(parser.parse_args().epochs)
