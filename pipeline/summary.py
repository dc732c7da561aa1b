"""What a finished run has to say, in a few lines: ``python -m pipeline.summary``.

Reads metrics.json.
"""

import json
from typing import Any

from pipeline import paths
from pipeline.errors import InputError, run_stage


def describe(metrics: dict[str, Any]) -> str:
    """The lines to print, from the content of metrics.json."""
    folds = ", ".join(f"{score:.3f}" for score in metrics["folds"].values())
    baselines = ", ".join(f"{name.replace('_', ' ')} {score:.3f}" for name, score in metrics["baselines"].items())
    rows = [
        ("submission", str(paths.SUBMISSION)),
        ("report", f"{paths.REPORT}, to be opened in a browser"),
        ("metrics", f"{paths.METRICS}, tables in {paths.TABLES}/, pictures in {paths.PLOTS}/"),
        ("macro-F1", _score(metrics, metrics["confidence"], f"held-out samples, {metrics['groups']:,} groups")),
        ("by fold", f"{folds} (mean {metrics['fold_mean']:.3f}, SD {metrics['fold_sd']:.3f})"),
        ("baselines", baselines),
        ("memory", _memory(**metrics["memory"])),
        (
            "expected",
            f"{metrics['expected_test_low']:.3f} to {metrics['expected_test_high']:.3f} on a test set like this",
        ),
    ]
    if "test" in metrics:
        confidence = metrics["confidence"]
        rows += [
            (
                "test, alike",
                _score(metrics["test_as_held_out"], confidence, "samples, by the networks of one fold each"),
            ),
            ("test set", _score(metrics["test"], confidence, "samples, by the networks of all folds")),
        ]
    return "\n".join(f"{name:<12}{text}" for name, text in rows)


def _score(summary: dict[str, Any], confidence: float, samples: str) -> str:
    text = (
        f"{summary['macro_f1']:.3f}, {confidence:.0%} interval {summary['macro_f1_low']:.3f} to "
        f"{summary['macro_f1_high']:.3f} ({summary['samples']:,} {samples})"
    )
    if summary["macro_f1"] != summary["macro_f1_present"]:
        present = summary["labels_present"]
        text += f"; {summary['macro_f1_present']:.3f} over the {present} labels that occur, as an absent one counts 0"
    return text


def _memory(grouped_folds: float, image_level_folds: float) -> str:
    return f"scores {grouped_folds:.3f} by these folds; by folds that split groups it would {image_level_folds:.3f}"


def main() -> None:
    """Print the summary."""
    try:
        metrics = json.loads(paths.METRICS.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise InputError(f"{paths.METRICS} is missing or damaged ({error}): run dvc repro first") from None
    print(describe(metrics))


if __name__ == "__main__":
    run_stage(main)
