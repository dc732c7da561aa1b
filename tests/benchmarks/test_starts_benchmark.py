"""The comparison of starts, at toy size."""

from benchmarks import starts
from pipeline.core.params import Simulation
from tests.fixtures.models import TINY

SMALL = Simulation(seed=3, train=24, test=30, size=64, fields_per_antibody=3.0, near_duplicates=0.0, test_exposure=0.75)


def test_gates_of_one_begin_as_the_plain_network_and_the_papers_do_not() -> None:
    found = starts.main(SMALL, TINY.model_copy(update={"ema_decay": 0.0}), epochs=2, seeds=2)
    assert found["epoch"].tolist() == [0, 1, 2] * 3
    plain, identity, paper = found.loc[found["epoch"] == 0, "loss"].to_numpy(dtype=float)
    assert found["start"].unique().tolist() == ["plain", "identity", "paper"]
    assert abs(identity - plain) < 1e-5
    assert abs(paper - plain) > 1e-4
