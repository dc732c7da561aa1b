"""The scores of a finished run in a few lines: ``python -m pipeline summary``.

Reads metrics.json, the sources in params.yaml and, if it exists, logs/times.csv with the time of each stage.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from pipeline.core import params, paths
from pipeline.core.entry import read_times
from pipeline.core.errors import InputError
from pipeline.core.revision import code_revision
from pipeline.reporting.blocks import BIAS_NOTE, simulated

NEAR = 0.25
"""A score in this lowest part of its interval gets `BIAS_NOTE`."""


def describe(metrics: dict[str, Any], sources: Sequence[str]) -> str:
    """The scores as aligned lines, from the content of metrics.json and the names of the sources."""
    folds = ", ".join(f"{score:.3f}" for score in metrics["folds"].values())
    baselines = ", ".join(f"{name.replace('_', ' ')} {score:.3f}" for name, score in metrics["baselines"].items())
    has_test = "expected_test_low" in metrics
    scores = [metrics]
    rows = [
        ("submission", str(paths.SUBMISSION) if has_test else f"none: {paths.source(sources[0])} has no test set"),
        ("report", f"{paths.REPORT} (open it in a browser)"),
        ("metrics", f"{paths.METRICS}, tables in {paths.TABLES}/, plots in {paths.PLOTS}/"),
        (
            "macro-F1",
            f"{_score(metrics, metrics)} {simulated(sources)}out-of-fold samples, {metrics['groups']:,} groups)",
        ),
        ("by fold", f"{folds} (mean {metrics['fold_mean']:.3f}, SD {metrics['fold_sd']:.3f})"),
        ("baselines", baselines),
        ("leakage", _leakage(**metrics["memory"])),
    ]
    if has_test:
        low, high = metrics["expected_test_low"], metrics["expected_test_high"]
        rows.append(("expected", f"{low:.3f} to {high:.3f} for single-fold models on the test set"))
    if "test" in metrics:
        kind = simulated(sources[:1])  # the first source has the test set
        rows += [
            ("test, single fold", f"{_score(metrics['test_as_held_out'], metrics)} {kind}samples, single-fold models)"),
            ("test", f"{_score(metrics['test'], metrics)} {kind}samples, models of all folds)"),
        ]
        scores += [metrics["test_as_held_out"], metrics["test"]]
    if "test_leak" in metrics:
        rows.append(("test leak", _leak(**metrics["test_leak"])))
    if any(_near_lower_end(score) for score in scores):
        rows.append(("intervals", BIAS_NOTE))
    return "\n".join(f"{name:<19}{text}" for name, text in rows)


def describe_times(times: dict[str, dict[str, float]]) -> str:
    """The time that each stage took when it last ran on this machine, the longest first."""
    totals = {stage: sum(jobs.values()) for stage, jobs in times.items()}
    longest = sorted(totals.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{stage} {_duration(seconds)}" for stage, seconds in longest if round(seconds))
    return f"{'time':<19}{_duration(sum(totals.values()))} ({listed})"


def of_this_run(times: dict[str, dict[str, float]], settings: params.Params) -> dict[str, dict[str, float]]:
    """The times without those of models, folds and sources that params.yaml no longer has."""
    known = {
        "--model": set(settings.models),
        "--fold": {str(fold) for fold in settings.folds.ids},
        "--source": set(settings.data.sources),
    }

    def belongs(job: str) -> bool:
        words = job.split()
        return all(value in known.get(flag, {value}) for flag, value in zip(words[::2], words[1::2], strict=True))

    return {stage: {job: took for job, took in jobs.items() if belongs(job)} for stage, jobs in times.items()}


def main(arguments: Sequence[str]) -> None:
    """Print the summary."""
    argparse.ArgumentParser(
        prog="python -m pipeline summary",
        description="Print the scores of the finished run in this folder, with intervals, baselines and stage times.",
    ).parse_args(arguments)
    try:
        metrics = json.loads(paths.METRICS.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise InputError(f"{paths.METRICS} is missing or damaged ({error}): run dvc repro first") from None
    settings = params.load()
    print(describe(metrics, settings.data.sources))
    if times := of_this_run(read_times(), settings):
        print(describe_times(times))
    print(f"{'code':<19}{code_revision()}")


def _score(scores: dict[str, Any], metrics: dict[str, Any]) -> str:
    """A score with its interval and, in an open bracket, the number of samples."""
    text = f"{scores['macro_f1']:.3f}"
    if scores["macro_f1"] != scores["macro_f1_present"]:
        present = f"{scores['macro_f1_present']:.3f} over the {scores['labels_present']} labels that occur"
        text += f" ({present}; a label without samples counts as 0)"
    interval = f"{scores['macro_f1_low']:.3f} to {scores['macro_f1_high']:.3f}"
    return f"{text}, {metrics['confidence']:.0%} interval {interval} ({scores['samples']:,}"


def _near_lower_end(scores: dict[str, Any]) -> bool:
    low, high = scores["macro_f1_low"], scores["macro_f1_high"]
    return bool(scores["macro_f1"] < low + NEAR * (high - low))


def _leakage(grouped_folds: float, image_level_folds: float) -> str:
    return (
        f"copying the labels of the sample with the most similar brightness scores {grouped_folds:.3f} with these "
        f"folds, {image_level_folds:.3f} with image-level folds"
    )


def _leak(samples: int, of: int) -> str:
    return (
        f"{samples:,} of {of:,} test samples also stand in a further source, with labels ({paths.TEST_LEAK}): the "
        "models have been trained on them, so test scores are optimistic"
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
