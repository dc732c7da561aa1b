"""Optimism of image-level folds for the networks of a finished run: ``python -m benchmarks.leak_network [MODEL ...]``.

Run it in the folder of a finished ``dvc repro``. The models (default: all) are trained again on image-level folds,
which takes as long as their first training; the predictions for grouped folds are those of the run. All work is done by
the pipeline's stages in a temporary folder.
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
from benchmarks.leak import SPLITS
from pipeline.core import paths
from pipeline.core.entry import run_main
from pipeline.core.labels import target_matrix
from pipeline.core.params import load
from pipeline.data.fold_assignment import assign_folds
from pipeline.data.fold_table import read_folds

TRAINED = ("models", "history", "predictions")
COLUMNS = ("samples", "groups", "macro_f1", "macro_f1_low", "macro_f1_high")


def image_level(folds: pd.DataFrame) -> pd.DataFrame:
    """Assign the same samples to folds that ignore the groups but are as balanced as the grouped ones."""
    ids = np.unique(folds["fold"])
    samples = folds["id"].to_numpy(dtype=np.str_)
    return folds.assign(fold=ids[assign_folds(target_matrix(folds["target"]), samples, len(ids), seed=0)])


def prepare(folder: Path, models: list[str], folds: pd.DataFrame) -> None:
    """Set up a project folder with some of the models, using the packed images of this one."""
    yaml = YAML(typ="safe")
    content: dict[str, Any] = yaml.load(Path("params.yaml"))
    yaml.dump(content | {"models": {model: content["models"][model] for model in models}}, folder / "params.yaml")
    (folder / "weights").symlink_to(Path("weights").resolve())  # which pretrained may name
    (folder / paths.DATA).mkdir()
    for entry in paths.DATA.iterdir():
        if entry.is_dir():
            (folder / entry).symlink_to(entry.resolve())
    folds.to_csv(folder / paths.FOLDS, index=False)


def run(stage: str, folder: Path, *arguments: str) -> None:
    """Run a stage in another folder."""
    command = [sys.executable, "-m", f"pipeline.stages.{stage}", *arguments]
    subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(Path.cwd())}, check=True)


def cross_validate(models: list[str], *, grouped: bool) -> dict[str, Any]:
    """The metrics of some models on grouped or image-level folds."""
    folds = read_folds()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, models, folds if grouped else image_level(folds))
        if grouped:
            for kind in TRAINED:
                (folder / kind).symlink_to(Path(kind).resolve())
        else:
            run("complete_models", folder)
            for model, fold in product(models, np.unique(folds["fold"])):
                run("train", folder, "--model", model, "--fold", str(fold))
                run("tta", folder, "--model", model, "--fold", str(fold))
        run("ensemble", folder)
        run("score", folder)
        metrics: dict[str, Any] = json.loads((folder / paths.METRICS).read_text(encoding="utf-8"))
    return metrics


def main() -> None:
    """Print the cross-validated and test scores for both kinds of folds."""
    models = sys.argv[1:] or list(load().models)
    rows, figures = [], dict[str, Any](models=models)
    for split in SPLITS:
        metrics = cross_validate(models, grouped=split == "grouped")
        single, test = metrics["test_as_held_out"], metrics["test"]
        rows += [
            metrics | {"folds": split, "scored on": "out-of-fold"},
            single | {"folds": split, "scored on": "test, single fold"},
            test | {"folds": split, "scored on": "test, all folds"},
        ]
        ends = (metrics["expected_test_low"], metrics["expected_test_high"])
        figures[split] = {
            "cross-validated": metrics["macro_f1"],
            "low": metrics["macro_f1_low"],
            "high": metrics["macro_f1_high"],
            "test, single fold": single["macro_f1"],
            "test, all folds": test["macro_f1"],
            "interval contains test": metrics["macro_f1_low"] <= single["macro_f1"] <= metrics["macro_f1_high"],
            "test in expected range": ends[0] <= single["macro_f1"] <= ends[1],
        }
    report(pd.DataFrame(rows)[["folds", "scored on", *COLUMNS]], figures)


if __name__ == "__main__":
    run_main(main)
