"""The benchmark of training measures both steps, and says what each machine is asked for."""

import pytest
import torch

from benchmarks.training import default_recipe, main
from pipeline.core import params
from pipeline.core.errors import InputError
from tests.fixtures.models import TINY


def test_it_runs_small() -> None:
    machine = params.load().machine.model_copy(update={"workers": 0})
    figures = main(TINY, machine, steps=2, side=40, rounds=2)
    on_a_gpu = torch.cuda.is_available()
    assert ("throughput_over_bare_gpu" if on_a_gpu else "step_over_bare_cpu") in figures
    assert all(figure > 0 for figure in figures.values())


def test_what_has_no_network_is_passed_over() -> None:
    settings = params.load()
    measured = TINY.model_copy(update={"backbone": "measured", "head": "forest"})
    with_it = settings.model_copy(update={"models": {**settings.models, "measured": measured}})
    assert default_recipe(with_it) == default_recipe(settings)
    with pytest.raises(InputError, match="none of its models is a network"):
        default_recipe(settings.model_copy(update={"models": {"measured": measured}}))


def test_the_size_is_the_one_that_the_machine_is_asked_for() -> None:
    recipe = default_recipe(params.load())
    assert recipe.size == (512 if torch.cuda.is_available() else 128)
