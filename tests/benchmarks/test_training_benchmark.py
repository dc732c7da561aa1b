"""The training benchmark times both steps, with the recipe that each machine is measured with."""

import pytest
import torch

from benchmarks import training
from pipeline.core import params
from pipeline.core.errors import InputError
from tests.fixtures.models import CLASSICAL, TINY


def test_both_steps_are_timed_in_every_round_but_the_first() -> None:
    machine = params.load().machine.model_copy(update={"workers": 0})
    seconds = training.measure(TINY, machine, steps=2, side=40, rounds=2)
    assert {case: len(taken) for case, taken in seconds.items()} == {"full": 2, "bare": 2}


def test_figures_are_of_the_full_step_over_the_bare_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "measure", lambda *_: {"full": [3.0, 3.0], "bare": [2.0, 2.0]})
    figures = training.main(TINY, params.load().machine, steps=30, side=40, rounds=2)
    if torch.cuda.is_available():
        assert figures["throughput_over_bare_gpu"] == pytest.approx(2 / 3)
        assert figures["images_per_second"] == pytest.approx(30 * TINY.batch_size / 3)
    else:
        assert figures == {"step_over_bare_cpu": 1.5, "step_over_bare_cpu_medians": 1.5}


def test_models_that_are_not_trained_in_steps_are_skipped() -> None:
    settings = params.load()
    with_it = settings.model_copy(update={"models": {**settings.models, "classical": CLASSICAL}})
    assert training.default_recipe(with_it) == training.default_recipe(settings)
    with pytest.raises(InputError, match="kind network"):
        training.default_recipe(settings.model_copy(update={"models": {"classical": CLASSICAL}}))


def test_the_size_depends_on_the_machine() -> None:
    recipe = training.default_recipe(params.load())
    assert recipe.size == (512 if torch.cuda.is_available() else 128)
