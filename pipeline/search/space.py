"""The space of a search: which sections of a model it contains, and how one is drawn from it."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.core.section_files import check_sections

DIGITS = 4
"""Significant digits of a drawn number, so that the section to paste is short and is exactly what was trained."""

Scalar = bool | int | float | str | None
Raw = dict[str, Any]
"""A model's section as params.yaml has it."""


@dataclass(frozen=True)
class Choice:
    """A parameter that is one of several values.

    Attributes:
        name: the key in the model's section, after its kind if the search has several kinds.
        values: what to choose from.
    """

    name: str
    values: tuple[params.Value, ...]

    @property
    def texts(self) -> tuple[Scalar, ...]:
        """The values as scalars: mappings and lists as JSON."""
        return tuple(_scalar(value) for value in self.values)

    def value(self, drawn: Scalar) -> params.Value:
        """The value that one of ``texts`` means."""
        return self.values[self.texts.index(drawn)]

    def find(self, value: Any) -> Scalar:
        """The text of a value of the section.

        Raises:
            ValueError: it is not among them.
        """
        return self.texts[self.texts.index(_scalar(value))]

    def __str__(self) -> str:
        return ", ".join(map(str, self.texts))


@dataclass(frozen=True)
class Numbers:
    """A parameter that is a number in a range, ends included.

    Attributes:
        name: as of ``Choice``.
        low: smallest value.
        high: largest value.
        log: whether its logarithm is uniform.
        whole: whether it is a whole number.
    """

    name: str
    low: float
    high: float
    log: bool
    whole: bool

    def value(self, drawn: Scalar) -> int | float:
        """The drawn number, rounded to ``DIGITS`` significant digits but within the range."""
        assert isinstance(drawn, (int, float))  # for the type checker
        return int(drawn) if self.whole else min(max(float(f"{drawn:.{DIGITS}g}"), self.low), self.high)

    def find(self, value: Any) -> Scalar:
        """A value of the section.

        Raises:
            ValueError: it is not in the range.
        """
        if not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            raise ValueError
        return value

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


Parameter = Choice | Numbers
Pick = Callable[[Parameter], Scalar]
"""Draws a parameter: one of a choice's texts, or a number."""


class Space:
    """The space of ``search`` in params.yaml.

    Args:
        settings: all of params.yaml.

    Raises:
        InputError: the default is no model, of no kind in the space, or outside of it; or a value of the space is not
            allowed.
    """

    def __init__(self, settings: params.Params) -> None:
        self.settings, self.search = settings, settings.search
        name = self.search.model
        if name not in settings.models:
            raise InputError(f"params.yaml: search.model is {name!r}: choose from {', '.join(settings.models)}")
        default = settings.models[name]
        if default.kind not in self.search.space:
            raise InputError(
                f"params.yaml: search.model is {name}, of kind {default.kind}, which search.space does not have "
                f"({', '.join(self.search.space)})"
            )
        if isinstance(default, params.NetworkModel) and default.keep == "best_loss":
            raise InputError(
                f"params.yaml: models.{name} has keep: best_loss, which chooses an epoch on the samples that score a "
                "trial: search with keep: last"
            )
        self.default = default
        self.bases: dict[str, Raw] = {
            kind: (default if kind == default.kind else getattr(settings.templates, kind)).model_dump(mode="json")
            for kind in self.search.space
        }
        self.dimensions: dict[str, dict[str, params.Dimension]] = {
            str(kind): {name: dimensions[name] for name in self.search.in_order(kind)}
            for kind, dimensions in self.search.space.items()
        }
        self._check_values()

    def draw(self, pick: Pick) -> Raw:
        """Draw a section of the space, whose values may not fit together.

        Args:
            pick: called for each parameter that applies, in order.
        """
        kinds = tuple(self.bases)
        kind = str(pick(Choice("kind", kinds))) if len(kinds) > 1 else kinds[0]
        section = copy.deepcopy(self.bases[kind])
        for name in self.dimensions[kind]:
            if self._applies(name, section):
                parameter = self._parameter(kind, name)
                _put(section, name, parameter.value(pick(parameter)))
        return section

    def section(self, values: Mapping[str, Scalar]) -> params.Model:
        """The section that was drawn with these values, by parameter.

        Raises:
            InputError: the values do not fit together.
        """
        return self._validated(self.draw(lambda parameter: values[parameter.name]), "params.yaml: search.space")

    def default_values(self) -> dict[str, Scalar]:
        """The values, by parameter, of which ``draw`` makes the default.

        Raises:
            InputError: it is not in the space; names the key.
        """
        values: dict[str, Scalar] = {}
        section = self.default.model_dump(mode="json")

        def pick(parameter: Parameter) -> Scalar:
            name = parameter.name.removeprefix(f"{self.default.kind}.")
            value = _get(section, name)
            try:
                values[parameter.name] = parameter.find(value)
            except ValueError:
                raise InputError(
                    f"params.yaml: search.space.{self.default.kind}.{name}: {_scalar(value)}, the value of models."
                    f"{self.search.model}, is not in it ({parameter}): the default is the first trial, so add its value"
                ) from None
            return values[parameter.name]

        self.draw(pick)
        return values

    def searched(self, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """What was drawn as the section has it, by key; keys whose condition does not hold are left out."""
        section = self.draw(lambda parameter: values[parameter.name])
        kind = str(section["kind"])
        found = {name: _scalar(_get(section, name)) for name in self.dimensions[kind] if self._applies(name, section)}
        return ({"kind": kind} if len(self.bases) > 1 else {}) | found

    def _applies(self, name: str, section: Raw) -> bool:
        """Whether the conditions of a parameter hold."""
        for other, value in self.search.conditions.get(name, {}).items():
            found = _get(section, other)
            if not (value in found if isinstance(found, dict) and isinstance(value, str) else found == value):
                return False
        return True

    def _parameter(self, kind: str, name: str) -> Parameter:
        dimension = self.dimensions[kind][name]
        full = f"{kind}.{name}" if len(self.bases) > 1 else name
        if not isinstance(dimension, params.Range):
            return Choice(full, dimension)
        base = _get(self.bases[kind], name)
        whole = (
            isinstance(base, int) if base is not None else dimension.low.is_integer() and dimension.high.is_integer()
        )
        return Numbers(full, dimension.low, dimension.high, dimension.log, whole)

    def _validated(self, section: Raw, origin: str) -> params.Model:
        everything = self.settings.model_dump(mode="json") | {"models": {self.search.model: section}}
        return check_sections(params.Params, everything, origin).models[self.search.model]

    def _check_values(self) -> None:
        """Check each value of the space beside the values that are not varied."""
        for kind, dimensions in self.dimensions.items():
            for name, dimension in dimensions.items():
                for value in _ends(dimension) if isinstance(dimension, params.Range) else dimension:
                    section = copy.deepcopy(self.bases[kind])
                    _put(section, name, value)
                    self._validated(section, f"params.yaml: search.space.{kind}.{name}")


def changes(section: Mapping[str, Any], template: Mapping[str, Any]) -> Raw:
    """The keys of a section that differ from its template, with ``kind``; of sections within it, theirs alone."""
    found: Raw = {"kind": section["kind"]}
    for name, value in section.items():
        base = template[name]
        if value != base:
            annotation = params.KINDS[section["kind"]].model_fields[name].annotation
            merged = isinstance(annotation, type) and issubclass(annotation, params.Section)
            found[name] = {key: one for key, one in value.items() if one != base[key]} if merged else value
    return found


def _ends(dimension: params.Range) -> Iterator[int | float]:
    for end in (dimension.low, dimension.high):
        yield int(end) if end.is_integer() else end


def _scalar(value: Any) -> Scalar:
    """A value as a scalar; numbers within mappings are all fractions, as those of ``loss`` are."""
    if isinstance(value, dict):
        return json.dumps({key: float(one) for key, one in value.items()})
    return json.dumps(value) if isinstance(value, (list, tuple)) else value


def _get(section: Raw, name: str) -> Any:
    value: Any = section
    for part in name.split("."):
        value = value[part]
    return value


def _put(section: Raw, name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for part in parents:
        section = section[part]
    section[last] = value
