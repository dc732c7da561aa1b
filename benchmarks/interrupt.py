"""Killed at random moments, does the pipeline end in the same bytes? ``python -m benchmarks.interrupt``.

A clone of this repository runs a tiny simulated competition from simulate to submit, once undisturbed. Then
`dvc repro` is started, killed with its whole process group at a random moment (SIGKILL, and some SIGINT or SIGTERM) and
started again, until all the kills are spent; every run that ends, and the last one, which is left alone, is
compared with the undisturbed run byte by byte. DVC writes dvc.lock in place; where a kill leaves half of it, and DVC
refuses to start, the lock is taken back from git, as docs/recipes.md has the user do. At last a run is killed in
training, the model's seed is changed, and the next run compared with an undisturbed one of that seed: a state of other
parameters must not be used.

The last line is JSON: ``kills``, ``different_files``, ``stale_resumes`` and ``torn_locks``.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from hashlib import blake2b
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from benchmarks.interleaved import report

OUTPUTS = ("models", "predictions", "blend", "submission.csv")
MADE = (*OUTPUTS, "data/packed", "data/folds.csv", "history", ".resume", ".dvc/cache", "data/sample/competition.zip")
SAVED = ".resume/train"
AIMS = ("pack", "train", "tta", "ensemble")
STAGES = 9
"""How many a run has: simulate, pack, folds, two cells of train and of tta, ensemble, submit."""


def clone(folder: Path, seed: int) -> Path:
    """A clone of this repository, with tiny parameters, in which nothing has run."""
    subprocess.run(["git", "clone", "--quiet", ".", str(folder)], check=True)
    write_params(folder / "params.yaml", seed)
    return folder


def write_params(path: Path, seed: int) -> None:
    """Shrink the parameters to a run of seconds a stage."""
    yaml = YAML(typ="safe")
    settings: dict[str, Any] = yaml.load(path)
    name, model = next(iter(settings["models"].items()))
    model |= {"channels": [8, 16, 32, 64], "size": 64, "epochs": 8, "batch_size": 8, "seed": seed}
    settings["models"] = {name: model}
    settings["sample"] |= {"train": 60, "test": 16, "size": 128}
    settings["pack"]["size"] = 128
    settings["folds"]["ids"] = [0, 1]
    settings["tta"]["views"] = ["identity", "flip"]
    settings["machine"] |= {"workers": 0, "save_minutes": 0}
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(settings, file)


def start(folder: Path) -> subprocess.Popen[bytes]:
    """`dvc repro` up to submission.csv, in a process group of its own, by this Python."""
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (folder / "repro.log").open("ab") as log:
        return subprocess.Popen(
            ["dvc", "repro", "submit"],
            cwd=folder,
            env=os.environ | {"PATH": beside, "PYTHONUNBUFFERED": "1"},  # or the log would lag behind
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def finish(folder: Path) -> dict[str, str]:
    """Run to the end, and return the digests of what came out.

    Raises:
        RuntimeError: the run failed; the end of its log is in the message.
    """
    log = folder / "repro.log"
    log.unlink(missing_ok=True)
    while start(folder).wait():
        mend_lock(folder)
    return digests(folder)


def mend_lock(folder: Path) -> None:
    """Take dvc.lock back from git if a kill has torn it: what was done by then is in DVC's cache of runs.

    Raises:
        RuntimeError: the run failed for another reason; the end of its log is in the message.
    """
    log = folder / "repro.log"
    said = log.read_text(errors="replace")
    if begun(said) or "dvc.lock" not in said:
        raise RuntimeError(said[-2000:])
    log.rename(folder / f"torn-{torn(folder)}.log")
    restore_locks(folder)


def torn(folder: Path) -> int:
    """How often the lock had to be taken back."""
    return len(list(folder.glob("torn-*.log")))


def restore_locks(folder: Path) -> None:
    """Have the lock files as they are committed."""
    subprocess.run(["git", "checkout", "--quiet", "--", "*.lock"], cwd=folder, check=True)


def digests(folder: Path) -> dict[str, str]:
    """Of every file among the outputs, by its name."""
    files = [path for name in OUTPUTS for path in [folder / name, *sorted((folder / name).rglob("*"))]]
    return {str(path.relative_to(folder)): blake2b(path.read_bytes()).hexdigest() for path in files if path.is_file()}


def differing(found: dict[str, str], expected: dict[str, str]) -> int:
    """How many files are not the same in both."""
    return sum(found.get(name) != expected.get(name) for name in found.keys() | expected.keys())


def stop(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Send the signal to everything that the command started, and wait until it is gone."""
    os.killpg(process.pid, how)
    process.wait()


def reset(folder: Path) -> None:
    """As if nothing had run."""
    for name in MADE:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    restore_locks(folder)


def begun(log: str) -> list[str]:
    """The stages that a log of `dvc repro` says were started, without their cells."""
    return re.findall(r"^Running stage '(?:.*:)?(\w+)", log, re.MULTILINE)


def catch(folder: Path, aim: str, delay: float) -> tuple[subprocess.Popen[bytes], str | None]:
    """Start a run and wait until a stage has been going for a while.

    Returns:
        The run, and the stage that is going; None if the run has ended.

    Raises:
        RuntimeError: the run failed.
    """
    log = folder / "repro.log"
    log.unlink(missing_ok=True)
    process, seen = start(folder), float("inf")
    while process.poll() is None:
        stages = begun(log.read_text(errors="replace"))
        if aim in stages:
            seen = min(seen, time.monotonic())
        if time.monotonic() > seen + delay:
            return process, stages[-1]
        time.sleep(0.02)
    if process.returncode:
        mend_lock(folder)
        return catch(folder, aim, delay)
    return process, None


def harass(
    folder: Path, expected: dict[str, str], signals: list[signal.Signals], longest: float
) -> tuple[Counter[tuple[str, str]], int, int]:
    """Kill a run again and again.

    Returns:
        How often each stage was killed by each signal, how many runs came to their end, and how many files differed
        in those.
    """
    moments, killed, ended, different = random.Random(0), Counter[tuple[str, str]](), 0, 0
    for how, aim in zip(signals, islice(cycle(AIMS), len(signals)), strict=True):
        process, stage = catch(folder, aim, moments.uniform(0, longest))
        while stage is None:  # that stage is done already, or was too quick: start afresh
            ended, different = ended + 1, different + differing(digests(folder), expected)
            reset(folder)
            process, stage = catch(folder, aim, moments.uniform(0, longest))
        stop(process, how)
        killed[stage, how.name] += 1
    return killed, ended + 1, different + differing(finish(folder), expected)


def stale(folder: Path, expected: dict[str, str]) -> int:
    """Kill a run in training, change its seed to 1, and count the files unlike those of an undisturbed run."""
    reset(folder)
    write_params(folder / "params.yaml", seed=0)
    process = start(folder)
    while not list((folder / SAVED).rglob("epoch-*.pt")):
        if process.poll() is not None:
            raise RuntimeError("the run ended before training saved a state")
        time.sleep(0.1)
    stop(process, signal.SIGKILL)
    write_params(folder / "params.yaml", seed=1)
    return differing(finish(folder), expected)


def main(kills: int, interrupts: int) -> dict[str, int]:
    """Run it all in a temporary folder, print, and return the figures."""
    with tempfile.TemporaryDirectory() as name:
        quiet = clone(Path(name) / "quiet", seed=0)
        started = time.perf_counter()
        expected = finish(quiet)
        longest = time.perf_counter() - started
        write_params(quiet / "params.yaml", seed=1)
        other = finish(quiet)
        harassed = clone(Path(name) / "harassed", seed=0)
        signals = [signal.SIGKILL] * kills + list(islice(cycle([signal.SIGINT, signal.SIGTERM]), interrupts))
        random.Random(1).shuffle(signals)
        killed, ended, different = harass(harassed, expected, signals, longest / STAGES)
        figures = {
            "kills": len(signals),
            "different_files": different,
            "stale_resumes": int(stale(harassed, other) > 0),
            "torn_locks": torn(harassed),
        }
    print(pd.Series(killed, name="kills").rename_axis(["stage", "signal"]).unstack(fill_value=0).to_string())
    row = {"undisturbed, s": longest, "files compared": ended * len(expected), "runs that ended": ended, **figures}
    report(pd.DataFrame([row]), figures)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="by SIGKILL")
    parser.add_argument("--interrupts", type=int, default=5, help="by SIGINT, as Ctrl-C, and SIGTERM")
    arguments = parser.parse_args()
    main(arguments.kills, arguments.interrupts)
