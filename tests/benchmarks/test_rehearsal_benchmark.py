"""The rehearsal runs at toy size, ends in a submission of every test sample, and leaves nothing stale."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import rehearsal
from pipeline.core import paths


@pytest.mark.parametrize(
    ("profile", "external"), [("params.yaml", 240), ("docs/profiles/kaggle-eight-gpus.yaml", 0)], ids=["two", "one"]
)
def test_rehearsal(tmp_path: Path, profile: str, external: int) -> None:
    figures = rehearsal.rehearse(tmp_path, Path(profile), train=120, test=20, external=external)
    assert figures.index.tolist() == list(rehearsal.STAGES)
    assert figures["peak_mb"].between(10, 2000).all()
    assert len(pd.read_csv(tmp_path / paths.SUBMISSION)) == 20
    folds = pd.read_csv(tmp_path / paths.FOLDS, dtype=str)
    assert len(folds) == 120 + external
    pairs = pd.read_csv(tmp_path / paths.DUPLICATES)
    assert len(pairs) == external // rehearsal.PER_COPY + (external > 0)
    rehearsal.time_nothing_to_do(tmp_path)  # raises if a stage is stale
