"""The training benchmark times both steps."""

import pytest

from benchmarks import training
from pipeline.core import params
from tests.fixtures.models import TINY


def test_both_steps_are_timed_in_every_round_but_the_first() -> None:
    machine = params.load().machine.model_copy(update={"workers": 0})
    seconds = training.measure(TINY, machine, steps=2, side=40, rounds=2)
    assert {case: len(taken) for case, taken in seconds.items()} == {"full": 2, "bare": 2}


def test_figures_are_of_the_full_step_over_the_bare_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "measure", lambda *_: {"full": [3.0, 3.0], "bare": [2.0, 2.0]})
    figures = training.main(TINY, params.load().machine, steps=30, side=40, rounds=2)
    assert figures == {"step_over_bare_cpu": 1.5, "step_over_bare_cpu_medians": 1.5}
