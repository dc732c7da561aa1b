"""YAML files as typed sections, with messages that name every wrong key."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.core.errors import InputError
from pipeline.core.model_params import KINDS, Section
from pipeline.core.pack_params import TAG
from pipeline.core.search_params import RANGE, Range

AnySection = TypeVar("AnySection", bound=Section)


def read_sections(root: type[AnySection], path: Path, prepare: Callable[[Any], Any] = lambda raw: raw) -> AnySection:
    """Read a YAML file that contains the sections of ``root``.

    Args:
        root: the class of the whole file.
        path: the file.
        prepare: applied to the file's contents before they are checked.

    Raises:
        InputError: the file is missing or not YAML, or a key is unknown, missing or of the wrong type;
            the message names every such key with what is allowed.
    """
    raw = read_yaml(path)
    if keys := list(_keys_that_are_no_text(raw)):
        raise InputError(f"{path}: {', '.join(keys)}: keys are text: write it in quotes, or choose another name")
    return check_sections(root, prepare(raw), str(path))


def check_sections(root: type[AnySection], raw: Any, origin: str) -> AnySection:
    """Check the sections of ``root`` as a YAML file contains them.

    Args:
        root: the class of the whole file.
        raw: its contents.
        origin: where they are from, for the message.

    Raises:
        InputError: as ``read_sections``.
    """
    try:
        # In JSON mode, strict validation accepts lists as tuples and integers as floats, and converts nothing else.
        return root.model_validate_json(json.dumps(raw))
    except (TypeError, ValueError) as error:
        problems = _problems(root, error) if isinstance(error, ValidationError) else [str(error)]
        raise InputError(f"{origin}: " + "; ".join(problems)) from None


def read_yaml(path: Path) -> Any:
    """Read a YAML file as DVC does: "1e-3" is a number.

    Raises:
        InputError: the file is missing or not YAML.
    """
    try:
        return YAML(typ="safe").load(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run the command in the project's root folder") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def _keys_that_are_no_text(raw: Any, within: str = "") -> Iterator[str]:
    """Dotted names of keys that YAML reads as numbers, dates and the like, which DVC would spell in another way."""
    if isinstance(raw, list):
        for item in raw:
            yield from _keys_that_are_no_text(item, within)
    elif isinstance(raw, dict):
        for key, value in raw.items():
            if not isinstance(key, str):
                yield f"{within}{key!r}"
            yield from _keys_that_are_no_text(value, f"{within}{key}.")


def _problems(root: type[Section], error: ValidationError) -> list[str]:
    """One phrase per invalid key: its dotted name, what is wrong, and its value."""
    phrases = []
    items = error.errors()
    wrong = [item["loc"][:-1] for item in items]
    for item in items:
        if item["type"] == "too_short" and item["loc"] in wrong:
            continue  # wrong items of a list do not count for pydantic
        section, kind, path = _locate(root, item["loc"])
        key = ".".join(map(str, path))
        of_kind = f" for kind {kind}" if kind else ""
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown key{of_kind}; allowed here: {', '.join(section.model_fields)}"
        elif item["type"] == "missing":
            message = f"this key is missing{of_kind}"
        elif item["type"] == "union_tag_not_found":
            message = f"kind is missing: {', '.join(KINDS)}"
        elif item["type"] == "union_tag_invalid":
            message = f"kind must be one of {', '.join(KINDS)} (it is {item['input'].get('kind')!r})"
        elif not isinstance(item["input"], dict):
            message += f" (it is {item['input']!r})"
        phrases.append(f"{key}: {message}" if key else message)
    return phrases


def _locate(root: type[Section], loc: tuple[int | str, ...]) -> tuple[type[BaseModel], str, list[int | str]]:
    """The section that contains the error, the kind of model if it is a model's, and the key's path in the file."""
    section: type[BaseModel] = root
    kind, path = "", list(loc)
    if loc[:1] == ("models",) and len(loc) > 2 and loc[2] in KINDS:
        kind = str(path.pop(2))  # pydantic adds the kind to the path, but it is not a key of the file
        section = KINDS[kind]
    elif loc[:1] == ("templates",) and len(loc) > 1 and loc[1] in KINDS:
        kind = str(loc[1])
    elif loc[:2] == ("search", "space") and len(loc) > 4:
        tag = path.pop(4)  # the same: it tells a range from a list of choices
        return (Range if tag == RANGE else root), kind, path
    path = [part for part in path if not str(part).startswith(TAG)]
    for part in path[2:] if section is not root else path:
        field = section.model_fields.get(str(part))
        if field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            section = field.annotation
    return section, kind, path
