"""The space: only sections that params.yaml could have, with the default among them and conditions kept."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.search.space import Choice, Numbers, Parameter, Scalar, Space, changes
from tests.fixtures.models import CLASSICAL, FROZEN
from tests.fixtures.searches import MODEL, SPACE, configure

TWO_KINDS = SPACE | {"classical": {"size": [32, 48]}}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def values(space: Space, seed: int) -> dict[str, Scalar]:
    """Values drawn at random."""
    generator, found = np.random.default_rng(seed), dict[str, Scalar]()

    def pick(parameter: Parameter) -> Scalar:
        if isinstance(parameter, Choice):
            found[parameter.name] = parameter.texts[generator.integers(len(parameter.texts))]
        else:
            drawn = generator.uniform(parameter.low, parameter.high)
            found[parameter.name] = round(drawn) if parameter.whole else drawn
        return found[parameter.name]

    space.draw(pick)
    return found


def test_every_drawn_section_is_valid_and_keeps_what_is_not_searched() -> None:
    space, seen = Space(configure(space=TWO_KINDS)), set()
    for seed in range(40):
        drawn = values(space, seed)
        section = space.section(drawn)
        seen.add(section.kind)
        assert space.searched(drawn)["kind"] == section.kind == drawn["kind"]
        assert ("classical.size" in drawn) == (section.kind == "classical")
        if isinstance(section, params.NetworkModel):
            names = {"learning_rate", "epochs", "focal", "loss"}
            assert section.model_dump(exclude=names) == MODEL.model_dump(exclude=names)
            assert ("network.focal.gamma" in drawn) == ("focal" in section.loss)
            assert ("focal.gamma" in space.searched(drawn)) == ("focal" in section.loss)
    assert seen == {"network", "classical"}


def test_the_default_is_a_point_of_the_space() -> None:
    space = Space(configure(space=TWO_KINDS))
    assert space.section(space.default_values()) == MODEL
    space = Space(configure(models={"tiny": CLASSICAL}, space={"classical": {"size": [32, 48]}}, conditions={}))
    assert space.section(space.default_values()) == CLASSICAL


def test_the_committed_default_and_those_of_the_profiles_are_in_their_spaces() -> None:
    root = Path(__file__).parents[2]
    for path in (root / "params.yaml", *sorted((root / "docs/profiles").glob("*.yaml"))):
        settings = params.load(path)
        space = Space(settings)
        assert space.section(space.default_values()) == settings.models[settings.search.model], path


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"model": "other"}, r"search\.model is 'other': choose from tiny"),
        ({"space": {"frozen": {"copies": [1, 2]}}, "conditions": {}}, r"tiny, of kind network, which .*\(frozen\)"),
        ({"space": {"network": {"dropout": {"low": 0, "high": 1, "log": False}}}, "conditions": {}},
         r"search\.space\.network\.dropout: models\.tiny\.dropout: .*less than 1 \(it is 1\)"),
        ({"space": {"network": {"epochs": {"low": 1.5, "high": 3, "log": False}}}, "conditions": {}},
         r"network\.epochs: models\.tiny\.epochs: .*valid integer \(it is 1\.5\)"),
        ({"space": {"network": {"loss": [{"focal": 1.0}, {"focl": 1.0}]}}, "conditions": {}}, r"network\.loss: .*focl"),
        ({"space": {"network": {"size": [32, 1024]}}, "conditions": {}}, r"models\.tiny\.size is 1024, larger than"),
        ({"space": {"network": {"pyramid": [None, "x"]}}, "conditions": {}}, r"network\.pyramid: .*valid integer"),
    ],
)  # fmt: skip
def test_what_a_model_could_not_have_is_named_before_the_first_trial(search: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Space(configure(**search))


def test_a_default_outside_of_the_space_is_named_with_what_the_space_has() -> None:
    low = {"network": {"learning_rate": {"low": 1e-4, "high": 1e-3, "log": True}}}
    with pytest.raises(InputError, match=r"learning_rate: 0\.005, the value of models\.tiny, .* \(0\.0001 to 0\.001\)"):
        Space(configure(space=low, conditions={})).default_values()
    with pytest.raises(
        InputError, match=r"network\.loss: .*focal.*, is not in it \(.*bce.*\): the default is the first"
    ):
        Space(configure(space={"network": {"loss": [{"bce": 1}, {"bce": 2}]}}, conditions={})).default_values()
    absent = {"network": {"focal.alpha": {"low": 0, "high": 1, "log": False}}}
    with pytest.raises(InputError, match=r"focal\.alpha: None, the value of models\.tiny, is not in it"):
        Space(configure(space=absent, conditions={})).default_values()


def test_an_epoch_chosen_on_the_samples_that_score_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"models\.tiny has keep: best_loss, which chooses an epoch on the samples"):
        Space(configure(models={"tiny": MODEL.model_copy(update={"keep": "best_loss"})}))


@given(st.floats(1e-9, 1), st.floats(1.1, 1e6), st.floats(0, 1))
def test_numbers_are_rounded_within_the_range(low: float, factor: float, share: float) -> None:
    numbers = Numbers("x", low, low * factor, log=False, whole=False)
    drawn = min(low + share * (low * factor - low), low * factor)
    value = numbers.value(drawn)
    assert numbers.low <= value <= numbers.high
    assert value == pytest.approx(drawn, rel=1e-3)


def test_whole_numbers_stay_whole() -> None:
    space = Space(configure(space={"network": {"epochs": {"low": 1, "high": 30, "log": True}}}, conditions={}))
    parameters: list[Parameter] = []

    def pick(parameter: Parameter) -> Scalar:
        parameters.append(parameter)
        return 7

    assert space.draw(pick)["epochs"] == 7
    assert parameters == [Numbers("epochs", 1, 30, log=True, whole=True)]


@pytest.mark.parametrize("seed", range(10))
def test_changes_are_what_the_template_lacks(seed: int) -> None:
    settings = configure(space={"network": SPACE["network"] | {"augment.crop": [0.5, 1.0]}})
    space = Space(settings)
    section = space.section(values(space, seed))
    template = settings.templates.network.model_dump(mode="json")
    raw = {"templates": settings.templates.model_dump(mode="json")}
    pasted = params.complete_models(raw | {"models": {"tiny": changes(section.model_dump(mode="json"), template)}})
    assert params.parse_model(json.dumps(pasted["models"]["tiny"])) == section
    assert changes(template, template) == {"kind": "network"}
    frozen = FROZEN.model_dump(mode="json")
    assert changes(frozen | {"copies": 9}, frozen) == {"kind": "frozen", "copies": 9}
