"""A run up to the end of tta as files, for tests of the stages that decide."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import f1_score

from pipeline import paths
from pipeline.atlas.folds import read_folds
from pipeline.atlas.packed import COLUMNS, read_index
from pipeline.labels import format_target, target_matrix
from pipeline.params import load
from pipeline.scoring.predictions import Predictions
from pipeline.stages import ensemble, folds, score, submit

COMMITTED = Path("params.yaml").read_text()

TRAIN, TEST = 90, 25

CURVE = {
    "epoch": [1, 2],
    "learning_rate": [0.1, 0.0],
    "train_loss": [0.5, 0.4],
    "held_out_loss": [0.5, 0.45],
    "held_out_macro_f1": [0.1, 0.2],
    "held_out_mean_average_precision": [0.1, 0.2],
    "images_per_second": [10.0, 11.0],
}


def write_index(source: str, train: int, test: int, seed: int) -> list[str]:
    """An index as ``pack`` writes it; half of the training samples share an antibody in threes. Returns all targets."""
    generator = np.random.default_rng(seed)
    targets = [
        format_target(generator.choice(6, size=generator.integers(1, 3), replace=False).tolist())
        for _ in range(train + test)
    ]
    table = pd.DataFrame({name: [0] * (train + test) for name in COLUMNS})
    table["row"] = range(train + test)
    table["phash"] = ""
    # Not in alphabetical order, so that one who sorts is found out.
    table["id"] = [f"{source}-{(row * 37) % 211:03}" for row in range(train + test)]
    table["split"] = ["train"] * train + ["test"] * test
    table["target"] = targets[:train] + [""] * test
    table["group"] = [f"HPA{row // 3:06}" if row < train // 2 else "" for row in range(train + test)]
    paths.packed(source).mkdir(parents=True)
    table.to_csv(paths.packed(source) / "index.csv", index=False)
    return targets


def informed(targets: npt.NDArray[np.bool_], seed: int) -> npt.NDArray[np.float32]:
    """Probabilities that know something of the truth."""
    noise = np.random.default_rng(seed).random(targets.shape)
    return (0.6 * noise + 0.4 * targets).astype(np.float32)


def write_predictions(test_targets: list[str]) -> None:
    """What train and tta would leave behind, the rows of each file in another order than those of folds.csv."""
    index = read_index("one")
    test_ids = index.loc[index["split"] == "test", "id"].to_numpy(dtype=np.str_)
    for number, model in enumerate(load().models):
        for fold, held_out in read_folds().groupby("fold"):
            shuffled = held_out.sample(frac=1, random_state=0)
            Predictions(
                held_out_ids=shuffled["id"].to_numpy(dtype=np.str_),
                held_out=informed(target_matrix(shuffled["target"]), seed=number),
                test_ids=test_ids,
                test=informed(target_matrix(test_targets), seed=10 + number),
            ).save(paths.predictions(model, int(str(fold))))
            path = paths.history(model, int(str(fold)))
            path.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(CURVE).to_csv(path, index=False)


def prepare() -> list[str]:
    """A run of two sources up to the end of tta, in the working folder; the truth of its test set, in its order."""
    Path("params.yaml").write_text(COMMITTED.replace("sources: [sample]", "sources: [one, two]"))
    targets = write_index("one", TRAIN, TEST, seed=0)
    write_index("two", 30, 5, seed=1)
    folds.main()
    write_predictions(targets[TRAIN:])
    return targets[TRAIN:]


def run_the_rest() -> dict[str, Any]:
    for stage in (ensemble, score, submit):
        stage.main()
    metrics: dict[str, Any] = json.loads(paths.METRICS.read_text())
    return metrics


def write_truth(ids: list[str], targets: list[str]) -> None:
    paths.source("one").mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"Id": ids, "Target": targets}).to_csv(paths.source("one") / "test_truth.csv", index=False)


def blend_ids() -> list[str]:
    index = read_index("one")
    return index.loc[index["split"] == "test", "id"].tolist()


def sklearn_macro_f1(truth: npt.NDArray[np.bool_], decisions: npt.NDArray[np.bool_]) -> float:
    return float(f1_score(truth, decisions, average="macro", zero_division=0))
