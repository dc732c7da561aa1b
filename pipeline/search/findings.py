"""What a search leaves in ``search/<study>/``: its trials, its report, the winner's section, the importance plot."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from ruamel.yaml import YAML

from pipeline.core import params
from pipeline.core.paths import replacing
from pipeline.reporting.charts import BLUE, MUTED, name_rows, panel, save_png
from pipeline.search.space import Space, changes
from pipeline.search.study import DEFAULT, Trial
from pipeline.search.verdict import Comparison, Estimate, Luck

MEASURES = {"average_precision": "mean average precision", "loss": "negative cross-entropy (nats)"}

SEED_NOTE = (
    "The interval covers the choice of samples (a bootstrap over groups) and the variation between the seeds of the "
    "training; it is that of one outer fold."
)


@dataclass(frozen=True)
class Result:
    """A finished search.

    Attributes:
        space: what was searched.
        trials: all of them, in order.
        winner: number of the best complete trial.
        section: its section.
        luck: the gain that luck alone would give.
        comparison: winner and default on the outer fold.
        importances: of each parameter for a high score, as a share of their sum, largest first.
        samples: number of inner and of outer samples.
    """

    space: Space
    trials: Sequence[Trial]
    winner: int
    section: params.Model
    luck: Luck
    comparison: Comparison
    importances: dict[str, float]
    samples: tuple[int, int]

    @property
    def gain(self) -> float:
        """Inner score of the winner minus that of the default."""
        return _score(self.trials[self.winner]) - _score(self.trials[DEFAULT])

    def verdict(self, confidence: float) -> str:
        """Whether the winner is ahead of the default, in one sentence."""
        name, found = self.space.search.model, self.comparison.difference
        if self.winner == DEFAULT:
            return f"No trial scored above the default: keep {name} as it is."
        size = f"{_interval(found, confidence, sign=True)} on fold {self.space.search.outer_fold}, which no trial saw"
        if found.low > 0:
            return f"Trial {self.winner} is ahead of the default {name}: {size}."
        if found.high < 0:
            return f"Trial {self.winner} is not ahead of the default {name} but behind it: {size}. Keep the default."
        return f"Trial {self.winner} is not ahead of the default {name}: {size}. Keep the default."


def write(result: Result, folder: Path, confidence: float) -> None:
    """Write ``trials.csv``, ``search.md``, ``winner.yaml`` and, if they can be told, ``importance.png``."""
    with replacing(folder) as temporary:
        temporary.mkdir()
        tabulate(result).to_csv(temporary / "trials.csv", index=False)
        (temporary / "search.md").write_text(describe(result, confidence), encoding="utf-8")
        (temporary / "winner.yaml").write_text(snippet(result, confidence), encoding="utf-8")
        if result.importances:
            save_png(draw_importances(result.importances), temporary / "importance.png")


def tabulate(result: Result) -> pd.DataFrame:
    """The trials, a row each: trial, state, score, held-out loss when it ended in the first fold, and its values."""
    rows = [
        {
            "trial": trial.number,
            "state": trial.state,
            "score": np.nan if trial.score is None else trial.score,
            "first_fold_loss": trial.losses[max(trial.losses)] if trial.losses else np.nan,
            **result.space.searched(trial.values),
        }
        for trial in result.trials
    ]
    return pd.DataFrame(rows)


def snippet(result: Result, confidence: float) -> str:
    """The winner's section as it is pasted into params.yaml: the keys that differ from the template of its kind."""
    template = getattr(result.space.settings.templates, result.section.kind).model_dump(mode="json")
    own = changes(result.section.model_dump(mode="json"), template)
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.representer.add_representer(type(None), lambda to, _: to.represent_scalar("tag:yaml.org,2002:null", "null"))
    yaml.dump({"models": {result.space.search.model: own}}, stream)
    return f"# {result.verdict(confidence)}\n{stream.getvalue()}"


def draw_importances(importances: dict[str, float]) -> Figure:
    """Importances as bars, the largest on top.

    Args:
        importances: as a share of their sum, by parameter, largest first.
    """

    def draw(axes: Axes) -> None:
        shares = list(importances.values())
        axes.barh(range(len(shares)), shares, color=BLUE, height=0.7)
        for row, share in enumerate(shares):
            axes.text(share, row, f" {share:.0%}", va="center", color=MUTED, fontsize=8)
        axes.set_xlim(0, max(1.15 * max(shares), 0.05))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_xlabel("importance for a high score (PED-ANOVA), as a share of the sum")
        axes.grid(axis="x")
        name_rows(axes, list(importances))

    return panel(draw, 7, 0.9 + 0.26 * len(importances), "Importance of the searched parameters")


def describe(result: Result, confidence: float) -> str:
    """The report, in Markdown."""
    search = result.space.search
    states = [trial.state for trial in result.trials]
    lines = [
        f"# Search for {search.model}",
        "",
        f"**{result.verdict(confidence)}**",
        "",
        f"{len(states)} trials: {states.count('complete')} complete, {states.count('pruned')} pruned, "
        f"{states.count('failed')} failed. Score: {MEASURES[search.objective]}, without thresholds; higher is better.",
        "",
        *_scores(result, confidence),
        "",
        "The winner was chosen by its inner score, so the inner difference is biased upwards. The outer scores are "
        f"means of {search.seeds} trainings each, with new seeds, on all inner samples. {SEED_NOTE}",
        "",
        _luck(result),
        "",
        "## Winner",
        "",
        "To use it, paste into params.yaml:",
        "",
        "```yaml",
        snippet(result, confidence).partition("\n")[2].rstrip(),
        "```",
        "",
    ]
    if result.importances:
        ranked = ", ".join(f"{name} {part:.0%}" for name, part in result.importances.items())
        basis = f"Estimated from {states.count('complete')} complete trials; from few, it is rough."
        picture = "![Importance of the searched parameters](importance.png)"
        lines += ["## Importance", "", picture, "", f"{ranked}. {basis}", ""]
    if failed := [trial for trial in result.trials if trial.state == "failed"]:
        lines += ["## Failed trials", "", *(f"- Trial {trial.number}: {trial.message}" for trial in failed), ""]
    return "\n".join(lines)


def _scores(result: Result, confidence: float) -> list[str]:
    """The table of inner and outer scores."""
    default, winner = result.trials[DEFAULT], result.trials[result.winner]
    found = result.comparison
    difference = "none" if result.winner == DEFAULT else _interval(found.difference, confidence, sign=True)
    inner, outer = result.samples
    return [
        f"| | default (trial {DEFAULT}) | winner (trial {result.winner}) | difference |",
        "|---|---|---|---|",
        f"| inner folds, out-of-fold (n = {inner:,}) | {_score(default):.3f} | {_score(winner):.3f} | "
        f"{result.gain:+.3f} |",
        f"| outer fold {result.space.search.outer_fold} (n = {outer:,}) | {_interval(found.default, confidence)} | "
        f"{_interval(found.winner, confidence)} | {difference} |",
    ]


def _luck(result: Result) -> str:
    """How much of the winner's inner gain luck would give."""
    found = (
        f"**Luck.** If all {len(result.trials)} trials were equally good, the best one would still score "
        f"{result.luck.expected:+.3f} above the default on the inner folds, by simulation; "
    )
    if result.gain <= 0:
        return f"{found}here, no trial scored above it."
    share = result.luck.expected / result.gain
    return (
        f"{found}that is {'all' if share >= 1 else f'{share:.0%}'} of the winner's gain of {result.gain:+.3f}. Luck "
        f"alone gives at least this gain with a probability of {result.luck.chance:.2f}."
    )


def _score(trial: Trial) -> float:
    return np.nan if trial.score is None else trial.score


def _interval(found: Estimate, confidence: float, *, sign: bool = False) -> str:
    form = "+.3f" if sign else ".3f"
    return f"{found.value:{form}} ({confidence:.0%} interval {found.low:{form}} to {found.high:{form}})"
