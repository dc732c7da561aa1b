"""A small finished run, written as the stages write it: 90 training and 12 test samples of noise, six labels."""

import json

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.atlas.audit import audit_folds
from pipeline.atlas.folds import COLUMNS as FOLD_COLUMNS
from pipeline.atlas.packed import COLUMNS, IMAGES, INDEX
from pipeline.labels import CHANNELS, LABELS, format_target, target_matrix
from pipeline.params import load
from pipeline.scoring import blend
from pipeline.scoring.baselines import baseline_macro_f1
from pipeline.scoring.blend import Blend
from pipeline.scoring.examples import choose_examples
from pipeline.scoring.maps import Maps
from pipeline.scoring.tables import by_fold, by_label, expect_test, summarise

TRAIN, TEST, SIDE, KNOWN = 90, 12, 48, 6


def write_run() -> None:
    """Write everything that a report reads, beside params.yaml in the working folder."""
    params, generator = load(), np.random.default_rng(0)
    source = params.data.sources[0]
    folds = _write_images(source, generator)
    truth = target_matrix(folds["target"])
    groups, fold = folds["group"].to_numpy(dtype=np.str_), folds["fold"].to_numpy()
    probabilities = (0.6 * generator.random(truth.shape) + 0.4 * truth).astype(np.float32)
    probabilities[:, KNOWN:] /= 4
    decisions = probabilities >= 0.5
    Blend(folds["id"].to_numpy(dtype=np.str_), probabilities, probabilities, decisions).save(blend.HELD_OUT)

    thresholds = np.full(len(LABELS), 0.5)
    examples = choose_examples(probabilities, decisions, truth, groups)
    examples.insert(0, "id", folds["id"].to_numpy()[examples.pop("position")])
    fold_table = by_fold(decisions, truth, groups, fold, params.score)
    models = list(params.models)
    tables = {
        "folds": fold_table,
        "labels": by_label(probabilities, decisions, truth, groups, thresholds, params.score),
        "policies": choices("policy", "fixed", "counts"),
        "blends": choices("blend", "probabilities", "weights"),
        "calibrations": choices("calibration", "none", "platt"),
        "history": pd.DataFrame(
            [
                (model, number, epoch, 0.5 - 0.1 * epoch, 0.5 - 0.08 * epoch, 0.1 * epoch, 0.1 * epoch)
                for model in models
                for number in params.folds.ids
                for epoch in (0, 1, 2)
            ],
            columns=[
                "model",
                "fold",
                "epoch",
                "train_loss",
                "held_out_loss",
                "held_out_macro_f1",
                "held_out_mean_average_precision",
            ],
        ),
        "examples": examples,
        "pr_curves": pd.DataFrame(
            {
                "label": np.repeat(range(len(LABELS)), 3),
                "recall": [1.0, 0.5, 0.0] * len(LABELS),
                "precision": [0.2, 0.6, 1.0] * len(LABELS),
                "threshold": [0.1, 0.5, 0.9] * len(LABELS),
            }
        ),
        "calibration": pd.DataFrame(
            {
                "probabilities": ["before", "before", "after"],
                "confidence": [0.2, 0.8, 0.5],
                "observed": [0.1, 0.5, 0.5],
                "n": [90, 10, 100],
            }
        ),
        "confusions": pd.DataFrame({"label_true": [0, 2], "label_predicted": [1, 0], "count": [3, 7]}),
        "blend": pd.DataFrame({"model": models, "weight": 1 / len(models), "macro_f1": 0.2}),
    }
    paths.TABLES.mkdir()
    for name, table in tables.items():
        table.to_csv(paths.TABLES / f"{name}.csv", index=False)
    metrics = {
        **summarise(decisions, truth, groups, params.score),
        **expect_test(decisions, truth, groups, TEST, params.score),
        "confidence": params.score.confidence,
        "fold_mean": float(fold_table["macro_f1"].mean()),
        "fold_sd": float(fold_table["macro_f1"].std()),
        "folds": dict(zip(fold_table["fold"].astype(str), fold_table["macro_f1"], strict=True)),
        "models": dict.fromkeys(models, 0.2),
        "baselines": baseline_macro_f1(truth, fold),
        "memory": {"grouped_folds": 0.1, "image_level_folds": 0.4},
    }
    paths.METRICS.write_text(json.dumps(metrics))
    targets = folds["target"].tolist()
    duplicates = [
        ("sample-000", source, "train", targets[0], "sample-001", source, "train", targets[1], "exact", 0, "different"),
        ("sample-003", source, "train", targets[3], "sample-090", source, "test", "", "near", 21, ""),
    ]
    columns = [f"{column}_{side}" for side in "ab" for column in ("id", "source", "split", "target")]
    table = pd.DataFrame(duplicates, columns=[*columns, "kind", "distance", "labels"])
    table.to_csv(paths.DUPLICATES, index=False)
    paths.FOLDS_AUDIT.write_text(json.dumps(audit_folds(truth, groups, fold)))
    pairs = examples.drop_duplicates(["id", "label"])
    for model in models:
        Maps(
            pairs["id"].to_numpy(dtype=np.str_),
            pairs["label"].to_numpy(),
            np.array(["grad_cam", "gate_1"]),
            generator.integers(0, 256, (len(pairs), 2, 8, 8), dtype=np.uint8),
        ).save(model)


def choices(column: str, used: str, better: str) -> pd.DataFrame:
    """A table of two settings, the better one unused."""
    return pd.DataFrame(
        {
            column: [used, better],
            "macro_f1": [0.1, 0.103],
            "labels_per_sample": [2.0, 1.5],
            "calibration_error": [0.1, 0.05],
            "chosen": [True, False],
        }
    )


def _write_images(source: str, generator: np.random.Generator) -> pd.DataFrame:
    """Write the packed images, their index and folds.csv, which is returned."""
    total = TRAIN + TEST
    images = generator.integers(0, 256, (total, SIDE, SIDE, len(CHANNELS)), dtype=np.uint8)
    targets = [
        format_target(generator.choice(KNOWN, size=generator.integers(1, 3), replace=False).tolist())
        for _ in range(TRAIN)
    ]
    index = pd.DataFrame({name: [0] * total for name in COLUMNS})
    index["row"] = range(total)
    index["phash"] = ""
    index["id"] = [f"sample-{row:03}" for row in range(total)]
    index["split"] = ["train"] * TRAIN + ["test"] * TEST
    index["target"] = targets + [""] * TEST
    index["group"] = [f"HPA{row // 3:06}" for row in range(total)]
    for position, channel in enumerate(CHANNELS):
        index[f"mean_{channel}"] = images[..., position].mean(axis=(1, 2)) / 255
    folder = paths.packed(source)
    folder.mkdir(parents=True)
    np.save(folder / IMAGES, images)
    index.to_csv(folder / INDEX, index=False)
    ids = load().folds.ids
    folds = index[:TRAIN].assign(source=source, fold=[ids[row // 3 % len(ids)] for row in range(TRAIN)])
    folds = folds[list(FOLD_COLUMNS)]
    folds.to_csv(paths.FOLDS, index=False)
    return folds
