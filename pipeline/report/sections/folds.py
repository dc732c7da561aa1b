"""How the samples were divided, and whether anything leaks."""

import pandas as pd

from pipeline.labels import LABELS
from pipeline.report.blocks import Pictures, Section
from pipeline.report.charts.theme import to_svg
from pipeline.report.figures import draw_fold_balance
from pipeline.report.run import Run
from pipeline.report.words import counted, listed


def folds_section(run: Run) -> Section:
    """The heat map of positives with what the audit found."""
    positives = pd.DataFrame(run.truth, columns=list(LABELS)).groupby(run.folds["fold"].to_numpy()).sum().T
    drawing = to_svg(draw_fold_balance(positives), "Positive samples by label and fold")
    return Section("folds", "Folds", [Pictures([drawing], folds_caption(run, positives))])


def folds_caption(run: Run, positives: pd.DataFrame) -> str:
    """Whether the folds leak, and how even they are."""
    leaked = run.audit["held_out_share_with_group_in_training"]
    imbalance = run.audit["imbalance"]
    sizes = [f"{fold['samples']:,}" for fold in run.audit["folds"].values()]
    text = (
        f"{counted(run.folds['group'].nunique(), 'group')} in folds of {listed(sizes)} samples. "
        + ("No group is in two folds, so no held-out sample has a sibling in training. " if leaked == 0 else "")
        + (
            f"{leaked:.1%} of the held-out samples have their group in training: their scores measure memory. "
            if leaked
            else ""
        )
        + "Blue cells hold more of a label than an even share, orange ones less. Of the "
        f"{counted(imbalance['labels'], 'label')} with a group for every fold, the worst is {imbalance['worst']:.0%} "
        f"off, the mean {imbalance['mean']:.0%}."
    )
    present = positives[positives.sum(axis=1) > 0]
    empty = present.index[(present == 0).any(axis=1)].tolist()
    if empty:
        text += f" Some fold has none of {listed(empty)}: there F1 is 0, whatever the model does."
    return text
