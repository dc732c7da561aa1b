"""The leak, shown on real networks: a finished run's models, trained again on image-level folds.

``python -m benchmarks.leak_network [MODEL ...]`` works in the folder of a finished ``dvc repro`` and takes as long as
training the models (all of params.yaml, if none is named) once on every fold. The run's own predictions serve for the
grouped folds. Everything is done by the pipeline's stages, in a folder of their own.
"""

import json
import os
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from benchmarks.interleaved import report
from pipeline.core import paths
from pipeline.core.entry import run_main
from pipeline.core.labels import target_matrix
from pipeline.core.params import load
from pipeline.data.fold_assignment import assign_folds
from pipeline.data.fold_table import read_folds

TRAINED = ("models", "history", "predictions")
COLUMNS = ("samples", "groups", "macro_f1", "macro_f1_low", "macro_f1_high")


def image_level(folds: pd.DataFrame) -> pd.DataFrame:
    """The same samples with folds that take no notice of groups, as even as the grouped ones."""
    ids = np.unique(folds["fold"])
    samples = folds["id"].to_numpy(dtype=np.str_)
    return folds.assign(fold=ids[assign_folds(target_matrix(folds["target"]), samples, len(ids), seed=0)])


def prepare(folder: Path, models: list[str], folds: pd.DataFrame) -> None:
    """Lay out a project folder of some models on the packed images of this one."""
    yaml = YAML(typ="safe")
    content: dict[str, Any] = yaml.load(Path("params.yaml"))
    yaml.dump(content | {"models": {model: content["models"][model] for model in models}}, folder / "params.yaml")
    (folder / paths.DATA).mkdir()
    for entry in paths.DATA.iterdir():
        if entry.is_dir():
            (folder / entry).symlink_to(entry.resolve())
    folds.to_csv(folder / paths.FOLDS, index=False)


def run(stage: str, folder: Path, *arguments: str) -> None:
    """Run a stage in a folder."""
    command = [sys.executable, "-m", f"pipeline.stages.{stage}", *arguments]
    subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(Path.cwd())}, check=True)


def cross_validate(models: list[str], *, grouped: bool) -> dict[str, Any]:
    """metrics.json of some models on grouped or on image-level folds."""
    folds = read_folds()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, models, folds if grouped else image_level(folds))
        if grouped:
            for kind in TRAINED:
                (folder / kind).symlink_to(Path(kind).resolve())
        else:
            for model, fold in product(models, np.unique(folds["fold"])):
                run("train", folder, "--model", model, "--fold", str(fold))
                run("tta", folder, "--model", model, "--fold", str(fold))
        run("ensemble", folder)
        run("score", folder)
        metrics: dict[str, Any] = json.loads((folder / paths.METRICS).read_text(encoding="utf-8"))
    return metrics


def main() -> None:
    """Print both cross-validated scores beside the test scores."""
    models = sys.argv[1:] or list(load().models)
    rows, figures = [], dict[str, Any](models=models)
    for way in ("grouped", "image-level"):
        metrics = cross_validate(models, grouped=way == "grouped")
        alike, test = metrics["test_as_held_out"], metrics["test"]
        rows += [
            metrics | {"folds": way, "scored on": "held-out samples"},
            alike | {"folds": way, "scored on": "test set, by each fold's network"},
            test | {"folds": way, "scored on": "test set, by all together"},
        ]
        ends = (metrics["expected_test_low"], metrics["expected_test_high"])
        figures[way] = {
            "cross-validated": metrics["macro_f1"],
            "low": metrics["macro_f1_low"],
            "high": metrics["macro_f1_high"],
            "test by each fold's": alike["macro_f1"],
            "test by all": test["macro_f1"],
            "interval holds test": metrics["macro_f1_low"] <= alike["macro_f1"] <= metrics["macro_f1_high"],
            "test as expected": ends[0] <= alike["macro_f1"] <= ends[1],
        }
    report(pd.DataFrame(rows)[["folds", "scored on", *COLUMNS]], figures)


if __name__ == "__main__":
    run_main(main)
