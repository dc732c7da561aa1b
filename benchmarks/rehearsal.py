"""Time and memory of the stages at the size of competition and atlas: ``python -m benchmarks.rehearsal``.

Two sources: the competition, and external training samples with ids as in the Human Protein Atlas, of which one in a
hundred has the files of a sample of the competition. The images have a few pixels, and random predictions replace
training, so the scores mean nothing. Each stage runs as ``dvc repro`` runs it, in a copy of the project, with a quarter
of the samples and with all of them, to show how its time grows. ``--external 0`` leaves out the second source.

The last line is JSON: ``seconds``, ``cpu_seconds`` (of all cores) and ``peak_mb`` of each stage with all samples (of
both sources together, for stages that run for each); ``growth`` of its processor time from a quarter to all samples,
beside ``linear`` and ``n_log_n``, what that would be for such times; and ``nothing_to_do_seconds`` and
``nothing_to_do_cpu_seconds``, the time of a ``dvc repro`` without stale stages.
"""

import argparse
import contextlib
import dataclasses
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import numpy.typing as npt
import pandas as pd
from dvc.repo import Repo
from ruamel.yaml import YAML

from benchmarks.interleaved import report
from pipeline.core import params, paths
from pipeline.core.labels import CHANNELS, LABELS, target_matrix
from pipeline.core.progress import say, track
from pipeline.evaluation.prediction_files import Predictions
from pipeline.simulation.competition import draw_label_sets
from pipeline.sources.images import encode_png
from pipeline.training.history import EpochScores

TRAIN, TEST, EXTERNAL = 31_072, 11_702, 74_606
"""Samples of the real competition, and those that its teams added from the atlas."""
PER_ANTIBODY, PER_COPY = 6, 100
"""Of the external samples: fields of an antibody, and one of how many shows what a sample of the competition shows."""
STEP = 57
"""Between the samples of the competition that are shown, so that test samples are among them."""
SIDE = 16
"""Size of the images in the archive (pixels)."""
PACKED = 32
"""Size of the packed images (pixels), the smallest that a model accepts."""
STAGES = ("code", "pack", "contact_sheet", "folds", "complete_models", "ensemble", "score", "submit")
PER_SOURCE = ("pack", "contact_sheet")
SOURCES = ("rehearsal", "atlas")


def prepare(project: Path, profile: Path, train: int, test: int, external: int) -> None:
    """Copy the project to a folder, with the profile as its parameters, and write archives of noise there."""
    shutil.copytree("pipeline", project / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(name, project)
    yaml = YAML()
    settings: Any = yaml.load(profile)
    settings["data"]["sources"] = list(SOURCES[: 1 + (external > 0)])
    settings["pack"]["size"] = PACKED
    settings["folds"]["ids"] = [0, 1, 2, 3, 4]
    for model in (*settings["templates"].values(), *settings["models"].values()):
        model["size"] = PACKED
    yaml.dump(settings, project / "params.yaml")
    for source in settings["data"]["sources"]:
        (project / paths.source(source)).mkdir(parents=True)
    for name in ("weights", "autoencoders", "submissions"):  # dependencies of train and report
        (project / name).mkdir()
    first = [f"{number:016x}" for number in np.random.default_rng(0).integers(2**63, size=train + test)]
    write_archive(project / paths.source(SOURCES[0]) / "competition.zip", first, train, range(train + test))
    if external:
        ids = [f"{number // PER_ANTIBODY}_{number}_A1_1" for number in range(external)]
        copied = {number: number // PER_COPY * STEP % (train + test) for number in range(0, external, PER_COPY)}
        images = [copied.get(number, train + test + number) for number in range(external)]
        write_archive(project / paths.source(SOURCES[1]) / "atlas.zip", ids, external, images)


def write_archive(path: Path, ids: Sequence[str], train: int, images: Sequence[int]) -> None:
    """Write an archive in Kaggle's layout: label sets with the competition's frequencies, images of noise.

    Args:
        path: the zip.
        ids: of the training samples, then of the test samples.
        train: number of training samples.
        images: the seed of the images of each sample.
    """
    random = np.random.default_rng(0)
    targets = [" ".join(map(str, labels)) for labels in draw_label_sets(random, train)]
    with ZipFile(path, "w") as archive:
        archive.writestr("train.csv", pd.DataFrame({"Id": ids[:train], "Target": targets}).to_csv(index=False))
        if test_ids := ids[train:]:
            archive.writestr(
                "sample_submission.csv", pd.DataFrame({"Id": test_ids, "Predicted": 0}).to_csv(index=False)
            )
        for position, id_ in enumerate(track(ids, "write archive")):
            split = "train" if position < train else "test"
            own = np.random.default_rng(images[position])
            for channel in CHANNELS:
                image = own.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
                archive.writestr(f"{split}/{id_}_{channel}.png", encode_png(image))


def write_predictions(project: Path) -> None:
    """Write outputs in place of train and tta: probabilities correlated with the truth, and a learning curve."""
    random = np.random.default_rng(0)
    folds = pd.read_csv(project / paths.FOLDS, dtype={"id": str, "target": str}, keep_default_na=False)
    index = pd.read_csv(project / paths.packed_index(SOURCES[0]), dtype={"id": str, "target": str})
    test_ids = index.loc[index["split"] == "test", "id"].to_numpy(dtype=np.str_)
    unknown = np.zeros((len(test_ids), len(LABELS)), dtype=np.bool_)
    curve = pd.DataFrame([{field.name: 1 for field in dataclasses.fields(EpochScores)}])
    for model in params.load(project / "params.yaml").models:
        for fold, held_out in folds.groupby("fold"):
            number = int(str(fold))
            Predictions(
                held_out_ids=held_out["id"].to_numpy(dtype=np.str_),
                held_out=_correlated(target_matrix(held_out["target"]), random),
                test_ids=test_ids,
                test=_correlated(unknown, random),
            ).save(project / paths.predictions(model, number))
            history = project / paths.history(model, number)
            history.parent.mkdir(parents=True, exist_ok=True)
            curve.to_csv(history, index=False)


def run_stage(project: Path, stage: str, *arguments: str) -> tuple[float, float, float]:
    """Run one stage in a new process; return its wall and processor seconds and its peak memory (MB)."""
    command = [sys.executable, "-m", f"pipeline.stages.{stage}", *arguments]
    started, before = time.perf_counter(), children_seconds()
    process = subprocess.Popen(command, cwd=project, env=os.environ | {"PYTHONPATH": str(project)})
    peak = 0
    # Not the figure of wait4, which includes the memory of this process at the time of the fork.
    while process.poll() is None:
        peak = max(peak, _peak_memory_kb(process.pid))
        time.sleep(0.02)
    if process.returncode:
        raise RuntimeError(f"the stage {stage} exited with {process.returncode}")
    return time.perf_counter() - started, children_seconds() - before, peak / 1e3


def children_seconds() -> float:
    """Processor time of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _peak_memory_kb(pid: int) -> int:
    """Peak memory of a process so far (kB); 0 once it has ended."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def rehearse(project: Path, profile: Path, train: int, test: int, external: int) -> pd.DataFrame:
    """Run all stages but train and tta; returns ``seconds``, ``cpu_seconds`` and ``peak_mb``, a row per stage."""
    prepare(project, profile, train, test, external)
    sources = params.load(project / "params.yaml").data.sources
    figures = {}
    for stage in STAGES:
        if stage == "ensemble":
            write_predictions(project)
        jobs = [("--source", source) for source in sources] if stage in PER_SOURCE else [()]
        measured = [run_stage(project, stage, *arguments) for arguments in jobs]
        seconds, processor, peaks = zip(*measured, strict=True)
        figures[stage] = (sum(seconds), sum(processor), max(peaks))
        say(f"{stage}: {sum(seconds):.1f} s, of which {sum(processor):.1f} s of processor time, {max(peaks):.0f} MB")
    return pd.DataFrame.from_dict(figures, orient="index", columns=["seconds", "cpu_seconds", "peak_mb"])


def time_nothing_to_do(project: Path) -> tuple[float, float]:
    """Wall and processor seconds of a ``dvc repro`` without stale stages; outputs that are missing become empty files.

    Raises:
        RuntimeError: a stage was stale.
    """
    Repo.init(str(project), no_scm=True).close()
    (project / ".dvc" / "config").write_text("[core]\n    analytics = false\n    no_scm = True\n")
    with contextlib.chdir(project), Repo() as repo:
        for out in repo.index.outs:
            if not Path(out.fs_path).exists():
                Path(out.fs_path).parent.mkdir(parents=True, exist_ok=True)
                Path(out.fs_path).touch()
        repo.commit(force=True)
    started, before = time.perf_counter(), children_seconds()
    output = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], cwd=project, check=True, capture_output=True, text=True
    ).stdout
    seconds = time.perf_counter() - started, children_seconds() - before
    if "Running stage" in output:
        raise RuntimeError(f"dvc repro ran a stage: {output}")
    return seconds


def main(profile: Path, train: int, test: int, external: int) -> dict[str, Any]:
    """Measure with a quarter and with all of the samples, print, and return the figures."""
    with tempfile.TemporaryDirectory() as quarter, tempfile.TemporaryDirectory() as full:
        small = rehearse(Path(quarter), profile, train // 4, test // 4, external // 4)
        table = rehearse(Path(full), profile, train, test, external)
        idle = time_nothing_to_do(Path(full))
    table["growth"] = table["cpu_seconds"] / small["cpu_seconds"]
    figures: dict[str, Any] = {str(name): column.round(2).to_dict() for name, column in table.items()}
    samples = train + test + external
    n_log_n = 4 * math.log(samples) / math.log(samples / 4)
    figures |= {"linear": 4, "n_log_n": round(n_log_n, 2), "samples": samples}
    figures |= {"nothing_to_do_seconds": round(idle[0], 2), "nothing_to_do_cpu_seconds": round(idle[1], 2)}
    report(table.rename_axis("stage").reset_index(), figures)
    return figures


def _correlated(truth: npt.NDArray[np.bool_], random: np.random.Generator) -> npt.NDArray[np.float32]:
    return (0.6 * random.random(truth.shape) + 0.4 * truth).astype(np.float32)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=TRAIN, help="training samples (default: %(default)s)")
    parser.add_argument("--test", type=int, default=TEST, help="test samples (default: %(default)s)")
    parser.add_argument(
        "--external", type=int, default=EXTERNAL, help="samples of the second source (default: %(default)s)"
    )
    parser.add_argument(
        "--profile", type=Path, default=Path("params.yaml"), help="file of parameters (default: %(default)s)"
    )
    arguments = parser.parse_args()
    main(arguments.profile, arguments.train, arguments.test, arguments.external)
