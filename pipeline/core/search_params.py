"""The section ``search`` of params.yaml: what ``python -m pipeline search`` varies, and how."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag, field_validator, model_validator

from pipeline.core.model_params import KINDS, Count, Section, Seed, Text

Kind = Literal["network", "frozen", "classical"]
Objective = Literal["average_precision", "loss"]
Pruner = Literal["none", "median", "hyperband"]
Value = bool | int | float | str | None | dict[str, float] | tuple[int, ...]
"""A value of a model's key."""

RANGE = "range"
NOT_SEARCHED = {
    "kind": "name several kinds in space instead",
    "seed": "the best of several seeds is luck",
    "keep": "best_loss chooses an epoch on the samples that score the trial",
    "evaluate_every": "the search sets it, so that the pruner sees every epoch",
    "precision": "it is a matter of the hardware",
    "compile": "it is a matter of the hardware",
}
"""Keys of a model that cannot be searched, with the reason."""


class Range(Section):
    """Numbers from low to high, both included; whole numbers for keys that are."""

    low: float = Field(description="Smallest value.")
    high: float = Field(description="Largest value.")
    log: bool = Field(description="Draw the logarithm uniformly.")

    @model_validator(mode="after")
    def _ends_fit(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low is {self.low}, which is not below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low}, but log: true needs numbers above 0")
        return self


Choices = Annotated[tuple[Value, ...], Field(min_length=2)]
Dimension = Annotated[
    Annotated[Choices, Tag("choices")] | Annotated[Range, Tag(RANGE)],
    Discriminator(lambda value: RANGE if isinstance(value, (dict, Range)) else "choices"),
]
"""The values of one parameter: a list of choices, or a range."""


class Search(Section):
    """The search for a model's parameters (``python -m pipeline search``)."""

    model: Text = Field(
        description="Key of models: the default, which is the first trial and which the winner must beat. What the "
        "search does not vary stays as it is there; other kinds take it from their template."
    )
    outer_fold: int = Field(ge=0, description="Fold that no trial sees; it judges the winner.")
    objective: Objective = Field(
        description="What trials are ranked by, on the out-of-fold predictions of the other folds: the mean average "
        "precision over labels, or the cross-entropy after a temperature fitted on the other folds."
    )
    pruner: Pruner = Field(
        description="Ends trials whose held-out loss in the first fold is high: above the median of the trials so far "
        "at the same share of their epochs, or by Hyperband."
    )
    startup: Count = Field(description="Trials drawn at random before TPE models what they found.")
    seeds: int = Field(
        ge=2, description="Trainings of the winner and of the default, with different seeds, for the comparison."
    )
    seed: Seed = Field(description="Random seed of the search.")
    space: dict[Kind, dict[str, Dimension]] = Field(
        min_length=1,
        description="For each kind of model to try: its keys, such as augment.crop, and their values, as a list or as "
        "{low, high, log}. The values of the default must be among them.",
    )
    conditions: dict[str, dict[str, Value]] = Field(
        description="A parameter that is varied only where another key has a value: {focal.gamma: {loss: focal}}. A "
        "key that is a mapping has the values that are its keys."
    )

    @field_validator("space")
    @classmethod
    def _keys_exist(cls, space: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for kind, dimensions in space.items():
            known = list(leaves(KINDS[kind]))
            for name in dimensions:
                if name in NOT_SEARCHED:
                    raise ValueError(f"{kind}.{name} cannot be searched: {NOT_SEARCHED[name]}")
                if name not in known:
                    allowed = ", ".join(key for key in known if key not in NOT_SEARCHED)
                    raise ValueError(f"{kind}.{name}: no key of kind {kind}; allowed: {allowed}")
        return space

    @model_validator(mode="after")
    def _conditions_can_be_checked(self) -> "Search":
        for name, needed in self.conditions.items():
            kinds = [kind for kind, dimensions in self.space.items() if name in dimensions]
            if not kinds:
                raise ValueError(f"conditions.{name}: space has no such parameter")
            for kind in kinds:
                if unknown := [other for other in needed if other not in leaves(KINDS[kind])]:
                    raise ValueError(f"conditions.{name}.{unknown[0]}: no key of kind {kind}")
        for kind in self.space:
            self.in_order(kind)
        return self

    def in_order(self, kind: Kind) -> list[str]:
        """The parameters of a kind, each after those that its condition names.

        Raises:
            ValueError: conditions need each other.
        """
        found: list[str] = []
        waiting = list(self.space[kind])
        while waiting:
            ready = [name for name in waiting if not any(other in waiting for other in self.conditions.get(name, {}))]
            if not ready:
                raise ValueError(f"conditions need each other: {', '.join(waiting)}")
            found.append(ready[0])
            waiting.remove(ready[0])
        return found


def leaves(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted names of the keys of a section that are no sections themselves: ``augment.crop``."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
