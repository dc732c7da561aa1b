"""The section ``search``: a key that a model does not have, a range without numbers, a condition that cannot hold."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.core.search_params import NOT_SEARCHED, leaves

COMMITTED = Path("params.yaml").resolve()
RATE = {"low": 0.1, "high": 1.0, "log": True}


def load(folder: Path, **changes: object) -> params.Search:
    settings: dict[str, Any] = YAML(typ="safe").load(COMMITTED)
    settings["search"] |= {"conditions": {}, **changes}
    YAML(typ="safe").dump(settings, folder / "params.yaml")
    return params.load(folder / "params.yaml").search


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"network": {"warm_up": RATE}}}, r"search\.space: network\.warm_up: no key of kind network; allow"),
        ({"space": {"frozen": {"epochs": [1, 2]}}}, r"search\.space: frozen\.epochs: no key of kind frozen; allowed"),
        ({"space": {"network": {"augment": [1, 2]}}}, r"network\.augment: no key of kind network; .*augment\.crop"),
        ({"space": {"network": {"seed": [1, 2]}}}, r"network\.seed cannot be searched: the best of several seeds"),
        ({"space": {"network": {"keep": ["last", "best_loss"]}}}, r"network\.keep cannot be searched: best_loss choos"),
        ({"space": {"forest": {"size": [32, 64]}}}, r"'network', 'frozen' or 'classical' \(it is 'forest'\)"),
        ({"space": {}}, r"search\.space: .*at least 1 item"),
        ({"space": {"network": {"epochs": [3]}}}, r"search\.space\.network\.epochs: .*at least 2 items"),
        ({"space": {"network": {"dropout": RATE | {"low": 2}}}}, r"network\.dropout: low is 2\.0, which is not below"),
        ({"space": {"network": {"dropout": RATE | {"low": 0}}}}, r"network\.dropout: low is 0\.0, but log: true needs"),
        ({"space": {"network": {"dropout": {"low": 0, "hihg": 1, "log": False}}}},
         r"dropout\.high: this key is missing; search\.space\.network\.dropout\.hihg: unknown key; allowed here: low"),
        ({"conditions": {"focal.gama": {"loss": "focal"}}}, r"search: conditions\.focal\.gama: space has no such para"),
        ({"conditions": {"focal.gamma": {"los": "focal"}}}, r"conditions\.focal\.gamma\.los: no key of kind network"),
        ({"conditions": {"focal.gamma": {"loss": "focal"}, "loss": {"focal.gamma": 2}}},
         r"search: conditions need each other: (.*, )?(loss|focal\.gamma), "),
        ({"objective": "macro_f1"}, r"search\.objective: .*'average_precision' or 'loss' \(it is 'macro_f1'\)"),
        ({"seeds": 1}, r"search\.seeds: .*greater than or equal to 2 \(it is 1\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(tmp_path, **changes)


def test_a_parameter_comes_after_those_that_its_condition_names(tmp_path: Path) -> None:
    names = ("focal.gamma", "dropout", "loss")
    space = {"network": dict.fromkeys(names, RATE) | {"loss": [{"focal": 1.0}, {"bce": 1.0}]}}
    found = load(tmp_path, space=space, conditions={"focal.gamma": {"loss": "focal"}, "dropout": {"focal.gamma": 2}})
    assert found.in_order("network") == ["loss", "focal.gamma", "dropout"]


def test_every_key_of_every_kind_is_searched_or_has_a_reason() -> None:
    for kind, section in params.KINDS.items():
        names = set(leaves(section))
        assert {"kind", "seed"} <= names & set(NOT_SEARCHED), kind
    assert set(NOT_SEARCHED) <= set(leaves(params.NetworkModel))
    assert {"augment.crop", "focal.gamma", "loss", "widths", "repeat.most"} <= set(leaves(params.NetworkModel))
