"""Count the label sets of the real competition: ``python -m pipeline.simulate.label_sets TRAIN_CSV``.

Run once on Kaggle's train.csv (31,072 rows); what it wrote stands beside it as label_sets.csv.
"""

import sys
from pathlib import Path

import pandas as pd

from pipeline.labels import format_target, parse_target
from pipeline.simulate.competition import LABEL_SETS

PROVENANCE = """\
# How often each set of labels occurs in train.csv of Kaggle's "Human Protein Atlas Image Classification" (2018):
# {rows} rows, {sets} sets, most frequent first. Made by python -m pipeline.simulate.label_sets TRAIN_CSV
"""


def count_label_sets(train: pd.DataFrame) -> pd.DataFrame:
    """Count the distinct targets of a training table (columns target, count), most frequent first."""
    target = train["Target"].map(lambda text: format_target(parse_target(text)))
    table = target.value_counts().rename_axis("target").reset_index(name="count")
    return table.sort_values(["count", "target"], ascending=[False, True], ignore_index=True)


if __name__ == "__main__":
    table = count_label_sets(pd.read_csv(Path(sys.argv[1])))
    header = PROVENANCE.format(rows=table["count"].sum(), sets=len(table))
    LABEL_SETS.write_text(header + table.to_csv(index=False, lineterminator="\n"))
