"""The section on likely annotation errors."""

import pandas as pd

from pipeline.core.labels import LABELS
from pipeline.reporting.blocks import SIMULATED, Card, Cards, PageSection, count_noun, label_names
from pipeline.reporting.finished_run import FinishedRun

ISSUES_SHOWN = 16
"""Issues that the report shows, at most one per group."""


def label_issues_section(run: FinishedRun) -> PageSection:
    """The most confident label issues, with the samples to look at."""
    issues = run.tables["label-issues"]
    group = dict(zip(run.folds["id"], run.folds["group"], strict=True))
    # Samples of a group usually share the annotation, and so its error.
    shown = issues[~issues["id"].map(group).duplicated()].head(ISSUES_SHOWN)
    cards = [issue_card(run, row["id"], int(row["label"])) for _, row in shown.iterrows()]
    return PageSection("label-issues", "Possible label errors", [Cards(cards, label_issues_caption(run, issues))])


def issue_card(run: FinishedRun, sample: str, label: int) -> Card:
    """A sample, the label that may be wrong, its probability, and all labels that are given."""
    position = run.positions[sample]
    title = f"{'Not' if run.truth[position, label] else 'Also'} {LABELS[label]}?"
    lines = [
        f"probability {run.held_out.probabilities[position, label]:.2f}",
        f"given: {label_names(run.truth[position])}",
    ]
    return Card(run.sample(position), title, lines)


def label_issues_caption(run: FinishedRun, issues: pd.DataFrame) -> str:
    """How many labels may be missing or given by mistake, and how to read the list."""
    if issues.empty:
        return "No label is contradicted by confident out-of-fold probabilities."
    given, samples = int(issues["given"].sum()), issues["id"].nunique()
    text = (
        f"Confident learning finds {count_noun(len(issues), 'label')} of {count_noun(samples, 'sample')} that may be "
        f"wrong: {len(issues) - given:,} missing (“Also ...?”) and {given:,} given by mistake (“Not ...?”). The most "
        "confident are shown, at most one per group; tables/label-issues.csv lists all, the most confident first. An "
        "error of the models looks the same, so check each one before you change it."
    )
    if set(run.params.data.sources) == {SIMULATED}:
        text += " The labels of simulated samples are right by construction: all of these are errors of the models."
    return text
