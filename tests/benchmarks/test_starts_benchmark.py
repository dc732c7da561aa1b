"""The comparison of initial gates, at toy size."""

import pytest

from benchmarks import starts
from pipeline.core.params import Simulation
from tests.fixtures.models import TINY

SMALL = Simulation(seed=3, train=24, test=30, size=64, fields_per_antibody=3.0, near_duplicates=0.0, test_exposure=0.75)


def test_only_gates_of_one_start_with_the_scores_of_the_plain_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "in_order", lambda work, items, _: map(work, items))  # processes start for seconds
    curves = starts.main(SMALL, TINY.model_copy(update={"ema_decay": 0.0}), epochs=2, seeds=2)
    assert curves["epoch"].tolist() == [0, 1, 2] * 3
    plain, identity, paper = curves.loc[curves["epoch"] == 0, "loss"].to_numpy(dtype=float)
    assert curves["start"].unique().tolist() == ["plain", "identity", "paper"]
    assert abs(identity - plain) < 1e-5
    assert abs(paper - plain) > 1e-4
