"""Print every key of params.yaml with its meaning, allowed values and readers: ``python -m pipeline params``.

The text comes from the classes that also check the file (``core/params.py``), the readers from dvc.yaml.
"""

import argparse
import configparser
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML

from pipeline.core.errors import InputError
from pipeline.core.params import KINDS, Params, Value, load

WIDTH = 100
"""Columns of the text."""
TYPES = {int: "integer", float: "number", str: "text", bool: "true | false", NoneType: "null"}
BOUNDS = (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))


def main(arguments: Sequence[str]) -> None:
    """Print the keys, or only check the file."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline params",
        description="Explain every key of params.yaml: meaning, unit, allowed values, and the stages that read it.",
    )
    parser.add_argument("section", nargs="?", help="only this section, such as ensemble, or a kind of model")
    parser.add_argument("--check", action="store_true", help="only check that params.yaml is valid and DVC can run")
    parsed = parser.parse_args(arguments)
    if parsed.check:
        sources = load().data.sources
        check_git(Path.cwd())
        print(f"params.yaml is valid: sources {', '.join(sources)}")
        return
    sections = list(describe_sections())
    chosen = [text for name, text in sections if parsed.section in (None, name)]
    if not chosen:
        raise InputError(f"no section {parsed.section}: {', '.join(name for name, _ in sections)}")
    print("\n\n".join(chosen))


def check_git(folder: Path) -> None:
    """Check that the project is under git or that DVC is told that it is not, without which DVC runs nothing.

    Raises:
        InputError: neither; says what to do.
    """
    if any((parent / ".git").exists() for parent in (folder, *folder.parents)):
        return
    told = configparser.ConfigParser()
    told.read([folder / ".dvc" / "config", folder / ".dvc" / "config.local"], encoding="utf-8")
    if not told.getboolean("core", "no_scm", fallback=False):
        raise InputError(
            f"{folder} is not under git, as a downloaded zip is not: run dvc config --local core.no_scm true "
            "here, or clone the project"
        )


def describe_sections() -> Iterator[tuple[str, str]]:
    """The name and the explanation of each section, and of each kind of model."""
    for name, field in Params.model_fields.items():
        if name == "models":
            for kind, model in KINDS.items():
                yield kind, _describe(f"models.<name>, kind {kind}", model, readers("models"))
        elif name != "templates" and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, _describe(name, field.annotation, readers(name))


def readers(section: str) -> str:
    """Which stages of dvc.yaml read a section."""
    stages: dict[str, Any] = {}
    for file in (Path("dvc.yaml"), *sorted(Path("data").glob("*/dvc.yaml"))):
        if file.exists():
            stages |= YAML(typ="safe").load(file)["stages"]
    reading = [
        name for name, stage in stages.items() if section in {key.split(".")[0] for key in stage.get("params", [])}
    ]
    if "complete-models" in reading:
        reading.insert(reading.index("complete-models") + 1, "train (its own model's section)")
    return ", ".join(reading) if reading else "no stage by name; the report, which shows the whole file, is drawn again"


def allowed(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """The values that a type takes, as text: ``number >= 0, <= 1``."""
    origin = get_origin(annotation)
    if annotation == Value:
        return "value"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"{{{', '.join(annotation.model_fields)}}}"
    if origin is Literal:
        return " | ".join("true" if value is True else str(value) for value in get_args(annotation))
    if origin in (Union, UnionType):
        return " | ".join(dict.fromkeys(allowed(part) for part in get_args(annotation)))
    if hasattr(annotation, "__metadata__"):
        inner = annotation.__metadata__
        return allowed(annotation.__origin__, [*(rule for part in inner for rule in _rules(part)), *metadata])
    if origin is tuple:
        return f"list of {allowed(get_args(annotation)[0])}"
    if origin is dict:
        key, value = get_args(annotation)
        return f"{{{allowed(key)}: {allowed(value)}}}"
    bounds = [f"{sign} {getattr(rule, name)}" for rule in metadata for name, sign in BOUNDS if hasattr(rule, name)]
    return " ".join([TYPES.get(annotation, "section"), ", ".join(bounds)]).strip()


def _rules(part: Any) -> Sequence[Any]:
    return part.metadata if isinstance(part, FieldInfo) else [part]


def _describe(title: str, section: type[BaseModel], read_by: str) -> str:
    explained = " ".join((section.__doc__ or "").split())
    lines = [f"{title}: {explained}", f"  read by: {read_by}"]
    return "\n".join([*lines, *_keys(section, "  ")])


def _keys(section: type[BaseModel], indent: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield f"{indent}{name}: {' '.join((annotation.__doc__ or '').split())}"
            yield from _keys(annotation, indent + "  ")
        else:
            yield f"{indent}{name}  [{allowed(annotation, [r for part in field.metadata for r in _rules(part)])}]"
            yield textwrap.fill(
                field.description or "", WIDTH, initial_indent=f"{indent}    ", subsequent_indent=f"{indent}    "
            )
