"""The rehearsal runs at toy size, and ends in a submission of every test sample."""

from pathlib import Path

import pandas as pd

from benchmarks import rehearsal
from pipeline import paths


def test_rehearsal(tmp_path: Path) -> None:
    figures = rehearsal.rehearse(tmp_path, train=120, test=20)
    assert figures.index.tolist() == list(rehearsal.STAGES)
    assert (figures > 0).all(axis=None)
    assert len(pd.read_csv(tmp_path / paths.SUBMISSION)) == 20
