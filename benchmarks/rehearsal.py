"""The stages at the competition's size, with images of a few pixels and random predictions in place of training.

``python -m benchmarks.rehearsal``. It says nothing of scores: it shows that nothing grows faster than the number of
samples, and what each stage needs in time and memory. Each stage runs as ``dvc repro`` would run it, in a copy of the
project, at a quarter of the size and at the whole.

The last line is JSON: ``seconds`` and ``peak_mb`` of each stage at the whole size, ``growth`` of its time from a
quarter to the whole (4 is linear), and ``nothing_to_do_seconds`` of a ``dvc repro`` that has nothing to do.
"""

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import time
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
from pipeline.core.progress import track
from pipeline.evaluation.prediction_files import Predictions
from pipeline.simulation.competition import draw_label_sets
from pipeline.sources.images import encode_png
from pipeline.training.history import EpochScores

TRAIN, TEST = 31_072, 11_702
"""The real competition's samples."""
SIDE = 16
"""Pixels of an image in the archive."""
PACKED = 32
"""Pixels of a packed image, the least a model may see."""
STAGES = ("pack", "folds", "ensemble", "score", "submit")
SOURCE = "rehearsal"


def prepare(project: Path, train: int, test: int) -> None:
    """Lay out a copy of the project with an archive of its own."""
    shutil.copytree("pipeline", project / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy("dvc.yaml", project)
    yaml = YAML()
    settings: Any = yaml.load(Path("params.yaml"))
    settings["data"]["sources"] = [SOURCE]
    settings["pack"]["size"] = PACKED
    settings["folds"]["ids"] = [0, 1, 2, 3, 4]
    for model in settings["models"].values():
        model["size"] = PACKED
    yaml.dump(settings, project / "params.yaml")
    (project / paths.source(SOURCE)).mkdir(parents=True)
    (project / "weights").mkdir()  # the models' stage watches it
    write_archive(project / paths.source(SOURCE) / "competition.zip", train, test)


def write_archive(path: Path, train: int, test: int) -> None:
    """Write an archive in Kaggle's layout: real sets of labels, images of noise."""
    random = np.random.default_rng(0)
    ids = [f"{random.integers(2**63):016x}" for _ in range(train + test)]
    targets = [" ".join(map(str, labels)) for labels in draw_label_sets(random, train)]
    with ZipFile(path, "w") as archive:
        archive.writestr("train.csv", pd.DataFrame({"Id": ids[:train], "Target": targets}).to_csv(index=False))
        archive.writestr("sample_submission.csv", pd.DataFrame({"Id": ids[train:], "Predicted": 0}).to_csv(index=False))
        for position, id_ in enumerate(track(ids, "writing")):
            split = "train" if position < train else "test"
            for channel in CHANNELS:
                image = random.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
                archive.writestr(f"{split}/{id_}_{channel}.png", encode_png(image))


def stand_in_for_training(project: Path) -> None:
    """Write what train and tta would leave: probabilities that know something of the truth, and a learning curve."""
    random = np.random.default_rng(0)
    folds = pd.read_csv(project / paths.FOLDS, dtype={"id": str, "target": str}, keep_default_na=False)
    index = pd.read_csv(project / paths.packed(SOURCE) / "index.csv", dtype={"id": str, "target": str})
    test_ids = index.loc[index["split"] == "test", "id"].to_numpy(dtype=np.str_)
    unknown = np.zeros((len(test_ids), len(LABELS)), dtype=np.bool_)
    curve = pd.DataFrame([{field.name: 1 for field in dataclasses.fields(EpochScores)}])
    for model in params.load(project / "params.yaml").models:
        for fold, held_out in folds.groupby("fold"):
            number = int(str(fold))
            Predictions(
                held_out_ids=held_out["id"].to_numpy(dtype=np.str_),
                held_out=_informed(target_matrix(held_out["target"]), random),
                test_ids=test_ids,
                test=_informed(unknown, random),
            ).save(project / paths.predictions(model, number))
            history = project / paths.history(model, number)
            history.parent.mkdir(parents=True, exist_ok=True)
            curve.to_csv(history, index=False)


def run_main(project: Path, stage: str) -> tuple[float, float]:
    """Run one stage as a process of its own; its wall seconds and peak memory in MB."""
    command = [sys.executable, "-m", f"pipeline.stages.{stage}"]
    command += ["--source", SOURCE] if stage == "pack" else []
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=project, env=os.environ | {"PYTHONPATH": str(project)})
    peak = 0
    # Not wait4's figure, which counts what this process held when it started the other.
    while process.poll() is None:
        peak = max(peak, _most_held(process.pid))
        time.sleep(0.02)
    if process.returncode:
        raise RuntimeError(f"the stage {stage} ended with {process.returncode}")
    return time.perf_counter() - started, peak / 1e3


def _most_held(pid: int) -> int:
    """The most memory that a process has held so far, in kB; 0 once it has ended."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def rehearse(project: Path, train: int, test: int) -> pd.DataFrame:
    """Run all stages but the training; a frame of ``seconds`` and ``peak_mb``, a row a stage."""
    prepare(project, train, test)
    figures = {}
    for stage in STAGES:
        if stage == "ensemble":
            stand_in_for_training(project)
        figures[stage] = run_main(project, stage)
    return pd.DataFrame.from_dict(figures, orient="index", columns=["seconds", "peak_mb"])


def time_nothing_to_do(project: Path) -> float:
    """Record the run as DVC would, with empty files for what was not made, and time a repro that has nothing to do."""
    dvc = [sys.executable, "-m", "dvc"]
    for command in (["init", "--no-scm", "-q"], ["config", "core.analytics", "false"]):
        subprocess.run([*dvc, *command], cwd=project, check=True)
    with Repo(str(project)) as repo:
        for out in repo.index.outs:
            if not Path(out.fs_path).exists():
                Path(out.fs_path).parent.mkdir(parents=True, exist_ok=True)
                Path(out.fs_path).touch()
    subprocess.run([*dvc, "commit", "--force"], cwd=project, check=True)
    started = time.perf_counter()
    said = subprocess.run([*dvc, "repro"], cwd=project, check=True, capture_output=True, text=True).stdout
    seconds = time.perf_counter() - started
    if "Running stage" in said:
        raise RuntimeError(f"dvc repro found something to do: {said}")
    return seconds


def main(train: int, test: int) -> dict[str, Any]:
    """Rehearse at a quarter and at the whole, print, and return the figures."""
    with tempfile.TemporaryDirectory() as quarter, tempfile.TemporaryDirectory() as whole:
        small = rehearse(Path(quarter), train // 4, test // 4)
        table = rehearse(Path(whole), train, test)
        idle = time_nothing_to_do(Path(whole))
    table["growth"] = table["seconds"] / small["seconds"]
    figures: dict[str, Any] = {str(name): column.round(2).to_dict() for name, column in table.items()}
    figures |= {"nothing_to_do_seconds": round(idle, 2), "samples": train + test}
    report(table.rename_axis("stage").reset_index(), figures)
    return figures


def _informed(truth: npt.NDArray[np.bool_], random: np.random.Generator) -> npt.NDArray[np.float32]:
    return (0.6 * random.random(truth.shape) + 0.4 * truth).astype(np.float32)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=TRAIN)
    parser.add_argument("--test", type=int, default=TEST)
    arguments = parser.parse_args()
    main(arguments.train, arguments.test)
