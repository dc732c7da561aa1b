"""Speed of ``python -m pipeline train-parallel`` against ``dvc repro``: ``python -m benchmarks.parallel_jobs``.

A clone of this repository packs a small simulated competition. Then all jobs (``train`` and ``tta`` of each model and
fold) run in three copies of it: by `dvc repro`, one after the other on all cores; by `dvc repro` with one thread, whose
outputs must have the same bytes as those of the parallel run; and by `train-parallel`, one job per core.

The last line is JSON: ``serial_over_parallel``, the ratio of wall times; ``different_files``, outputs that differ
between the parallel run and `dvc repro` with one thread; ``rerun_stages``, which `dvc repro` would still run.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from benchmarks.interleaved import report
from benchmarks.interrupt import clone, differing, digests
from pipeline.commands.train_parallel import BEFORE

SERIAL = ("dvc", "repro", "tta")
PARALLEL = (sys.executable, "-m", "pipeline", "train-parallel")


def run(folder: Path, *command: str, threads: int | None = None) -> tuple[float, str]:
    """Run a command in a folder; return its wall seconds and standard output.

    Raises:
        RuntimeError: the command failed; the end of its output is in the message.
    """
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("OMP_NUM_THREADS", None)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return time.perf_counter() - started, done.stdout


def write_params(path: Path, epochs: int, *, tiny: bool) -> None:
    """Set the epochs and, unless ``tiny``, sizes with which start-up does not dominate the time of a job."""
    yaml = YAML(typ="safe")
    settings: dict[str, Any] = yaml.load(path)
    for model in settings["models"].values():
        model |= {"epochs": epochs, "evaluate_every": epochs, "pretrained": False}
        model |= {} if tiny else {"widths": [32, 64, 128, 256], "size": 96}
    settings["machine"]["save_minutes"] = 5
    if not tiny:
        settings["sample"] |= {"train": 240, "test": 60}
        settings["machine"]["workers"] = "auto"
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(settings, file)


def prepare(folder: Path, epochs: int, *, tiny: bool = False) -> Path:
    """Clone this repository and run all stages before the jobs."""
    clone(folder, seed=0)
    write_params(folder / "params.yaml", epochs, tiny=tiny)
    run(folder, "dvc", "repro", *BEFORE)
    return folder


def run_jobs(prepared: Path, copy: Path, *command: str, threads: int | None = None) -> tuple[float, dict[str, str]]:
    """Run all jobs in a copy of a prepared folder; return the wall seconds and the digests of the outputs."""
    shutil.copytree(prepared, copy, symlinks=True)
    seconds, _ = run(copy, *command, threads=threads)
    return seconds, digests(copy)


def stale_stages(folder: Path) -> int:
    """How many jobs and earlier stages `dvc repro` would run."""
    return len(json.loads(run(folder, "dvc", "status", "--json", "--with-deps", "tta")[1]))


def main(epochs: int) -> None:
    """Measure in a temporary folder, and print the figures."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        prepared = prepare(root / "prepared", epochs)
        runs = {
            "dvc repro": run_jobs(prepared, root / "serial", *SERIAL),
            "dvc repro, one thread": run_jobs(prepared, root / "one-thread", *SERIAL, threads=1),
            "train-parallel": run_jobs(prepared, root / "parallel", *PARALLEL),
        }
        rerun = stale_stages(root / "parallel")
    _, expected = runs["train-parallel"]
    table = pd.DataFrame(
        {"run": how, "seconds": seconds, "different files": differing(found, expected)}
        for how, (seconds, found) in runs.items()
    )
    figures = {
        "serial_over_parallel": runs["dvc repro"][0] / runs["train-parallel"][0],
        "different_files": differing(runs["dvc repro, one thread"][1], expected),
        "rerun_stages": rerun,
    }
    report(table, figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30, help="training epochs of each job (default: %(default)s)")
    main(parser.parse_args().epochs)
