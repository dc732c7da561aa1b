"""Score the out-of-fold decisions and, if its true labels are known, the decisions on the test set.

Reads data/folds.csv, data/duplicates.csv, blend/, history/, the first source's index and its test_truth.csv if there is
one (which no other stage reads); writes metrics.json, tables/ and plots/.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.core import paths
from pipeline.core.entry import run_main
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS, LABELS, format_target, target_matrix
from pipeline.core.params import Params, load
from pipeline.core.paths import replacing
from pipeline.data.fold_assignment import assign_folds
from pipeline.data.fold_table import read_folds
from pipeline.data.leak import find_leak, read_duplicates
from pipeline.evaluation import result_files
from pipeline.evaluation.diagnostics import (
    baseline_macro_f1,
    choose_examples,
    confusions,
    copied_macro_f1,
    precision_recall,
    reliability,
)
from pipeline.evaluation.label_issues import rank_label_issues
from pipeline.evaluation.metrics import Thresholds, binary_cross_entropy, calibration_error
from pipeline.evaluation.score_tables import by_fold, by_label, expect_test, summarise
from pipeline.reporting.charts import save_png
from pipeline.reporting.figures import (
    draw_fold_balance,
    draw_label_scores,
    draw_learning_curves,
    draw_precision_recall_grid,
)
from pipeline.sources.packed_array import read_index
from pipeline.sources.tables import RIGHT_TARGET, parse_labels, read_table

LEAST_BRIGHTNESS = 1e-3
"""Added to brightness (as a share of white), so that the logarithm of a black channel is finite."""


def read_test_truth(path: Path, ids: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_]:
    """Read the true labels of the test samples ``ids``, (N, 28), from a table like train.csv.

    Raises:
        InputError: the file is damaged, or its ids are not those of the test set.
    """
    targets = read_table(path.read_bytes(), path, ["Id", "Target"], RIGHT_TARGET).set_index("Id")["Target"]
    if sorted(targets.index) != sorted(ids.tolist()):
        lacking = sorted(set(ids.tolist()) - set(targets.index))
        raise InputError(
            f"{path}: its {len(targets)} ids are not those of the {len(ids)} test samples, each once "
            f"(missing: {', '.join(lacking[:3]) or 'none'}): replace or remove the file"
        )
    try:
        return target_matrix(format_target(parse_labels(text)) for text in targets.loc[ids.tolist()])
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_history(settings: Params) -> pd.DataFrame:
    """Read the learning curves of all models and folds, adding the columns ``model`` and ``fold``."""
    curves = []
    for model in settings.models:
        for fold in settings.folds.ids:
            path = paths.history(model, fold)
            try:
                curves.append(pd.read_csv(path).assign(model=model, fold=fold))
            except (FileNotFoundError, ValueError) as error:
                raise InputError(f"{path} is missing or damaged ({error}): run the train stage again") from None
    return pd.concat(curves, ignore_index=True)


def score_test(
    params: Params, thresholds: Thresholds
) -> tuple[dict[str, float], dict[str, float], pd.DataFrame] | None:
    """Score the test set; None if its true labels are unknown.

    Returns:
        The summary for models of all folds, the summary for single-fold models, and the label table of the former. The
        second summary is comparable with cross-validation: single-fold models and their rule predict all test samples,
        and the decisions of all folds are scored together. The first benefits from averaging more models.
    """
    source = params.data.sources[0]
    path = paths.source(source) / "test_truth.csv"
    if not path.exists():
        return None
    decided = result_files.load_blend(result_files.TEST)
    truth = read_test_truth(path, decided.ids)
    index = read_index(source).set_index("id").loc[decided.ids.tolist()]
    groups = index["group"].where(index["group"] != "", index.index).to_numpy(dtype=np.str_)
    table = by_label(decided.probabilities, decided.decisions, truth, groups, thresholds, params.score)
    folds = params.folds.ids
    blends = [result_files.load_blend(result_files.single_fold_test(fold)) for fold in folds]
    single_fold = np.concatenate([blend.decisions for blend in blends])
    repeated = summarise(single_fold, np.tile(truth, (len(folds), 1)), np.tile(groups, len(folds)), params.score)
    return (
        summarise(decided.decisions, truth, groups, params.score),
        {**repeated, "samples": len(truth)},
        table,
    )


def read_brightness(samples: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Log mean and log standard deviation of each channel, (N, 8): exposure multiplies both by a factor."""
    columns = [f"{figure}_{channel}" for figure in ("mean", "std") for channel in CHANNELS]
    indexes = {source: read_index(source)[columns].to_numpy() for source in samples["source"].unique()}
    figures = np.array([indexes[source][row] for source, row in zip(samples["source"], samples["row"], strict=True)])
    return np.log(figures + LEAST_BRIGHTNESS)


def check_leakage(
    samples: pd.DataFrame, truth: npt.NDArray[np.bool_], folds: npt.NDArray[np.int64], seed: int
) -> dict[str, float]:
    """The macro-F1 of copying labels (`copied_macro_f1`) with these folds and with folds that ignore groups."""
    brightness = read_brightness(samples)
    ids = samples["id"].to_numpy(dtype=np.str_)
    image_level = assign_folds(truth, ids, len(np.unique(folds)), seed)
    return {
        "grouped_folds": copied_macro_f1(brightness, truth, folds),
        "image_level_folds": copied_macro_f1(brightness, truth, image_level),
    }


def tabulate(choices: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Tables of the settings compared (policies, blends, calibrations), and of each model's weight and own scores."""
    tables = {}
    for plural, key in (("policies", "policy"), ("blends", "blend"), ("calibrations", "calibration")):
        table = pd.DataFrame(choices[plural]).T.rename_axis(key).reset_index()
        tables[plural] = table.assign(chosen=table[key] == choices[key])
    models = pd.DataFrame(choices["models"]).T.rename_axis("model").reset_index()
    models.insert(1, "weight", models["model"].map(choices["weights"]))
    return {**tables, "blend": models}


def write_tables(tables: dict[str, pd.DataFrame]) -> None:
    """Write tables/NAME.csv for each table, replacing the folder."""
    with replacing(paths.TABLES) as folder:
        folder.mkdir()
        for name, table in tables.items():
            table.to_csv(folder / f"{name}.csv", index=False)


def write_plots(
    params: Params,
    tables: dict[str, pd.DataFrame],
    truth: npt.NDArray[np.bool_],
    folds: npt.NDArray[np.int64],
) -> None:
    """Draw plots/*.png, which ``dvc plots diff`` compares between revisions."""
    positives = pd.DataFrame(truth, columns=list(LABELS)).groupby(folds).sum().T
    with replacing(paths.PLOTS) as folder:
        folder.mkdir()
        save_png(draw_learning_curves(tables["history"]), folder / "learning-curves.png")
        save_png(draw_label_scores(tables["labels"], params.score.confidence), folder / "labels.png")
        save_png(draw_precision_recall_grid(tables["pr_curves"], tables["labels"]), folder / "precision-recall.png")
        save_png(draw_fold_balance(positives), folder / "folds.png")


def main() -> None:
    """Run the stage."""
    params = load()
    samples = read_folds()
    truth = target_matrix(samples["target"])
    groups, folds = samples["group"].to_numpy(dtype=np.str_), samples["fold"].to_numpy()
    held_out = result_files.load_blend(result_files.HELD_OUT)
    if not np.array_equal(held_out.ids, samples["id"]):
        raise InputError(
            f"{result_files.HELD_OUT}: its samples are not those of {paths.FOLDS}: run the ensemble stage again"
        )
    choices = result_files.read_decisions()
    thresholds = np.array(choices["thresholds"])

    fold_table = by_fold(held_out.decisions, truth, groups, folds, params.score)
    label_table = by_label(held_out.probabilities, held_out.decisions, truth, groups, thresholds, params.score)
    history = read_history(params)
    examples = choose_examples(held_out.probabilities, held_out.decisions, truth, groups)
    examples.insert(0, "id", held_out.ids[examples.pop("position")])
    issues = rank_label_issues(held_out.probabilities, truth)
    issues.insert(0, "id", held_out.ids[issues.pop("position")])
    by_stage = {"as blended": held_out.uncalibrated}
    if choices["calibration"] != "none":
        by_stage[f"after {choices['calibration']}"] = held_out.probabilities
    tables = {
        "folds": fold_table,
        "labels": label_table,
        "history": history,
        "examples": examples,
        "pr_curves": precision_recall(held_out.probabilities, truth),
        "calibration": pd.concat(
            reliability(probabilities, truth).assign(probabilities=stage) for stage, probabilities in by_stage.items()
        ),
        "confusions": confusions(held_out.decisions, truth),
        "label-issues": issues,
        **tabulate(choices),
    }
    tables["test-leak"] = find_leak(read_duplicates(), params.data.sources[0])
    test_samples = len(result_files.load_blend(result_files.TEST).ids)
    metrics: dict[str, Any] = {
        **summarise(held_out.decisions, truth, groups, params.score),
        **(expect_test(held_out.decisions, truth, groups, test_samples, params.score) if test_samples else {}),
        "confidence": params.score.confidence,
        "fold_mean": float(fold_table["macro_f1"].mean()),
        "fold_sd": float(fold_table["macro_f1"].std()),
        "folds": dict(zip(fold_table["fold"].astype(str), fold_table["macro_f1"], strict=True)),
        "loss": binary_cross_entropy(held_out.probabilities, truth),
        "calibration_error": calibration_error(held_out.probabilities, truth),
        "calibration_error_as_blended": calibration_error(held_out.uncalibrated, truth),
        "models": {model: rating["macro_f1"] for model, rating in choices["models"].items()},
        "baselines": baseline_macro_f1(truth, folds),
        "memory": check_leakage(samples, truth, folds, params.folds.seed),
    }
    if len(leak := tables["test-leak"]):
        metrics["test_leak"] = {"samples": leak["test_id"].nunique(), "of": test_samples}
    if test := score_test(params, thresholds):
        metrics["test"], metrics["test_as_held_out"], tables["test_labels"] = test

    write_tables(tables)
    write_plots(params, tables, truth, folds)
    with replacing(paths.METRICS) as temporary:
        temporary.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
