"""Does an interrupted pipeline resume to the same bytes? ``python -m benchmarks.interrupt``.

A clone of this repository runs a tiny simulated competition from simulate to submit, first without interruption. Then
`dvc repro` is started, killed with its whole process group at a random moment (mostly SIGKILL, sometimes SIGINT or
SIGTERM) and started again, until all kills are done. Every run that completes, and a last one that is not interrupted,
is compared byte by byte with the uninterrupted run.

DVC writes dvc.lock in place. If a kill leaves it truncated and DVC refuses to start, the file is restored from git, as
docs/recipes.md tells users to do. Finally, a run is killed while training, the model's seed is changed, and the next
run is compared with an uninterrupted run of the new seed: a saved state of other parameters must not be used.

The last line is JSON: ``kills``, ``different_files``, ``stale_resumes`` (1 if a saved state of other parameters was
used) and ``corrupt_locks`` (how often dvc.lock was restored).
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
WRITTEN = (
    *OUTPUTS,
    "code-digests",
    "data/packed",
    "data/folds.csv",
    "data/sample/competition.zip",
    "history",
    "model-params",
    ".dvc/cache",
    ".resume",
)
SAVED = ".resume/train"
TARGETS = ("pack", "train", "tta", "ensemble")
"""Stages to kill, in turn."""
STAGES = 11
"""Jobs of a run: code, simulate, pack, folds, complete-models, train and tta of two folds each, ensemble, submit."""


def clone(folder: Path, seed: int) -> Path:
    """Clone this repository, with tiny parameters and without any outputs."""
    subprocess.run(["git", "clone", "--quiet", ".", str(folder)], check=True)
    write_params(folder / "params.yaml", seed)
    return folder


def write_params(path: Path, seed: int) -> None:
    """Set parameters with which each stage takes seconds."""
    yaml = YAML(typ="safe")
    settings: dict[str, Any] = yaml.load(path)
    name, model = next(iter(settings["models"].items()))
    model |= {"widths": [8, 16, 32, 64], "size": 64, "epochs": 8, "batch_size": 8, "seed": seed}
    model |= {"pretrained": False, "augment": {"crop": 1}}
    settings["models"] = {name: model}
    settings["sample"] |= {"train": 60, "test": 16, "size": 128}
    settings["pack"]["size"] = 128
    settings["folds"]["ids"] = [0, 1]
    settings["tta"]["views"] = ["identity", "flip"]
    settings["machine"] |= {"workers": 0, "save_minutes": 0}
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(settings, file)


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start `dvc repro submit` with this Python in a new process group."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (folder / "repro.log").open("ab") as log:
        return subprocess.Popen(
            ["dvc", "repro", "submit"],
            cwd=folder,
            env=os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1"},  # otherwise the log lags behind
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def finish(folder: Path) -> dict[str, str]:
    """Run to completion, and return the digests of the outputs.

    Raises:
        RuntimeError: the run failed; the end of its log is in the message.
    """
    log = folder / "repro.log"
    log.unlink(missing_ok=True)
    while start(folder).wait():
        repair_lock(folder)
    return digests(folder)


def repair_lock(folder: Path) -> None:
    """Restore dvc.lock from git if a kill has truncated it; finished stages are still in DVC's run cache.

    Raises:
        RuntimeError: the run failed for another reason; the end of its log is in the message.
    """
    path = folder / "repro.log"
    log = path.read_text(errors="replace")
    if started_stages(log) or "dvc.lock" not in log:
        raise RuntimeError(log[-2000:])
    path.rename(folder / f"corrupt-lock-{corrupt_locks(folder)}.log")
    restore_locks(folder)


def corrupt_locks(folder: Path) -> int:
    """How often dvc.lock had to be restored."""
    return len(list(folder.glob("corrupt-lock-*.log")))


def restore_locks(folder: Path) -> None:
    """Restore the committed lock files."""
    subprocess.run(["git", "checkout", "--quiet", "--", "*.lock"], cwd=folder, check=True)


def digests(folder: Path) -> dict[str, str]:
    """Digest of every output file, by name."""
    files = [path for name in OUTPUTS for path in [folder / name, *sorted((folder / name).rglob("*"))]]
    return {str(path.relative_to(folder)): blake2b(path.read_bytes()).hexdigest() for path in files if path.is_file()}


def differing(found: dict[str, str], expected: dict[str, str]) -> int:
    """Number of files that differ or are missing on one side."""
    return sum(found.get(name) != expected.get(name) for name in found.keys() | expected.keys())


def stop(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Send the signal to the command and all processes it started, and wait for the command to end."""
    os.killpg(process.pid, how)
    process.wait()


def reset(folder: Path) -> None:
    """Delete all outputs, caches and saved states."""
    for name in WRITTEN:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    restore_locks(folder)


def started_stages(log: str) -> list[str]:
    """The stages that `dvc repro` started according to its log, without model and fold."""
    return re.findall(r"^Running stage '(?:.*:)?([\w-]+)", log, re.MULTILINE)


def run_until(folder: Path, target: str, delay: float) -> tuple[subprocess.Popen[bytes], str | None]:
    """Start a run and wait until ``delay`` seconds after the start of a stage.

    Returns:
        The run, and the stage that is running now; None if the run has ended.

    Raises:
        RuntimeError: the run failed.
    """
    log = folder / "repro.log"
    log.unlink(missing_ok=True)
    process, target_started = start(folder), float("inf")
    while process.poll() is None:
        stages = started_stages(log.read_text(errors="replace"))
        if target in stages:
            target_started = min(target_started, time.monotonic())
        if time.monotonic() > target_started + delay:
            return process, stages[-1]
        time.sleep(0.02)
    if process.returncode:
        repair_lock(folder)
        return run_until(folder, target, delay)
    return process, None


def kill_repeatedly(
    folder: Path, expected: dict[str, str], signals: list[signal.Signals], longest: float
) -> tuple[Counter[tuple[str, str]], int, int]:
    """Kill a run with each of the signals and start it again.

    Args:
        folder: the clone to run in.
        expected: digests of the uninterrupted run.
        signals: one per kill.
        longest: upper limit of the random time between the start of the target stage and the kill, in seconds.

    Returns:
        How often each stage was killed by each signal, the number of runs that completed, and the number of files that
        differed in them.
    """
    delays, killed, completed, different = random.Random(0), Counter[tuple[str, str]](), 0, 0
    for how, target in zip(signals, islice(cycle(TARGETS), len(signals)), strict=True):
        process, stage = run_until(folder, target, delays.uniform(0, longest))
        while stage is None:  # the run completed before the kill: start again from scratch
            completed, different = completed + 1, different + differing(digests(folder), expected)
            reset(folder)
            process, stage = run_until(folder, target, delays.uniform(0, longest))
        stop(process, how)
        killed[stage, how.name] += 1
    return killed, completed + 1, different + differing(finish(folder), expected)


def resume_with_other_seed(folder: Path, expected: dict[str, str]) -> int:
    """Kill a training, change the seed to 1, run again, and count the files that differ from ``expected``."""
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
    """Measure in a temporary folder, print, and return the figures."""
    with tempfile.TemporaryDirectory() as name:
        undisturbed = clone(Path(name) / "undisturbed", seed=0)
        started = time.perf_counter()
        expected = finish(undisturbed)
        seconds = time.perf_counter() - started
        write_params(undisturbed / "params.yaml", seed=1)
        other = finish(undisturbed)
        disturbed = clone(Path(name) / "disturbed", seed=0)
        signals = [signal.SIGKILL] * kills + list(islice(cycle([signal.SIGINT, signal.SIGTERM]), interrupts))
        random.Random(1).shuffle(signals)
        killed, completed, different = kill_repeatedly(disturbed, expected, signals, seconds / STAGES)
        figures = {
            "kills": len(signals),
            "different_files": different,
            "stale_resumes": int(resume_with_other_seed(disturbed, other) > 0),
            "corrupt_locks": corrupt_locks(disturbed),
        }
    print(pd.Series(killed, name="kills").rename_axis(["stage", "signal"]).unstack(fill_value=0).to_string())
    row = {
        "uninterrupted run, s": seconds,
        "completed runs": completed,
        "files compared": completed * len(expected),
        **figures,
    }
    report(pd.DataFrame([row]), figures)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="kills by SIGKILL (default: %(default)s)")
    parser.add_argument(
        "--interrupts", type=int, default=5, help="kills by SIGINT (Ctrl-C) and SIGTERM (default: %(default)s)"
    )
    arguments = parser.parse_args()
    main(arguments.kills, arguments.interrupts)
