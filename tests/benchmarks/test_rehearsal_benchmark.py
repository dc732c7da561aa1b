"""The rehearsal runs at toy size, ends in a submission of every test sample, and leaves nothing stale."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import rehearsal
from pipeline.core import paths


@pytest.mark.parametrize("profile", ["params.yaml", "docs/profiles/kaggle-eight-gpus.yaml"])
def test_rehearsal(tmp_path: Path, profile: str) -> None:
    figures = rehearsal.rehearse(tmp_path, Path(profile), train=120, test=20)
    assert figures.index.tolist() == list(rehearsal.STAGES)
    assert figures["peak_mb"].between(10, 2000).all()
    assert len(pd.read_csv(tmp_path / paths.SUBMISSION)) == 20
    rehearsal.time_nothing_to_do(tmp_path)  # raises if a stage is stale
