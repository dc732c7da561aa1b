"""Check that what a stage read did not change while it ran.

DVC records the parameters and files of a stage after the stage has ended. If somebody edits them meanwhile, dvc.lock
would record the new ones beside a result of the old ones, and the result would count as up to date. A stage that DVC
runs therefore compares its inputs at its end with those at its start, and fails if they differ. Other programs check
nothing.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.core import code_digest, stray_files
from pipeline.core.errors import InputError
from pipeline.core.section_files import read_yaml

PARAMS = Path("params.yaml")
DIGESTS = "code-digests/"
WEIGHTS = "weights/"
ADDED_TO = (WEIGHTS, "autoencoders/")
"""Folders with weights to start from: a new file in them is for another job or a later run."""
NOT_WEIGHTS = (".csv", ".md", ".yaml")
"""Files in weights/ that DVC ignores, see .dvcignore."""
NAMED = 3
"""Number of inputs that a message names; the others are only counted."""

_before: dict[str, Any] = {}


def run_by_dvc() -> bool:
    """Whether DVC has started this process, and records what the stage has read."""
    return bool(os.environ.get("DVC_STAGE"))


def remember() -> None:
    """Remember the inputs of the stage that DVC has started, if it has.

    Raises:
        InputError: the code is not that of the digest that DVC will record.
    """
    _before.clear()
    _before.update(_read())
    if _before:
        _check_code()


def check() -> None:
    """Check that the inputs are those that were remembered; without any, do nothing.

    Raises:
        InputError: they are not; names them.
    """
    if not _before:
        return
    now = _read()
    changed = [name for name, value in _before.items() if now.get(name) != value]
    changed += [name for name in now if name not in _before and not name.startswith(ADDED_TO)]
    if changed:
        others = ", ..." if len(changed) > NAMED else ""
        raise InputError(
            f"{', '.join(changed[:NAMED])}{others}: changed while this stage ran, so its result belongs to neither "
            "version: run dvc repro again"
        )
    _check_code()


def _read() -> dict[str, Any]:
    """Parameters and stamps of files (size and time of the last change) by name, as dvc.yaml declares them."""
    file, _, stage = os.environ.get("DVC_STAGE", "").rpartition(":")
    if not stage:
        return {}
    declared = _value(read_yaml(Path(file or "dvc.yaml")), "stages", stage.partition("@")[0])
    if not isinstance(declared, dict):
        raise InputError(f"{file or 'dvc.yaml'} no longer has the stage {stage}, which runs: run dvc repro again")
    parameters = read_yaml(PARAMS)
    flags = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=False))
    variables = {f"${{item.{flag.removeprefix('--')}}}": value for flag, value in flags.items()}
    if sources := _value(parameters, "data", "sources"):
        variables["${data.sources[0]}"] = str(sources[0])
    found: dict[str, Any] = {}
    for key in declared.get("params", ()):
        name = _substitute(key, variables)
        found[f"{PARAMS}: {name}"] = _value(parameters, *name.split("."))
    for key in declared.get("deps", ()):
        path = _substitute(key, variables)
        if not path.startswith(DIGESTS):
            found |= _stamps(Path(path))
    return found


def _value(found: Any, *keys: str) -> Any:
    """The value at a path of keys, or None: somebody may be editing the file."""
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _substitute(text: str, variables: dict[str, str]) -> str:
    for name, value in variables.items():
        text = text.replace(name, value)
    return text


def read_files(path: Path) -> Iterator[Path]:
    """The files of a dependency that DVC sees: a file, or those of a folder."""
    for file in stray_files.walk(path) if path.is_dir() else [path]:
        unseen = file.name.startswith(".") or stray_files.is_stray(file)
        unseen = unseen or (file.as_posix().startswith(WEIGHTS) and file.suffix in NOT_WEIGHTS)
        if file.is_file() and not unseen and file.parent.name != "__pycache__":
            yield file


def _stamps(path: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for file in read_files(path):
        status = file.stat()
        found[file.as_posix()] = status.st_size, status.st_mtime_ns
    return found


def _check_code() -> None:
    """Check that the stage's code is that of its digest, which the stage ``code`` wrote."""
    specification = sys.modules["__main__"].__spec__
    name = specification.name if specification else ""
    digest = Path(f"{DIGESTS}{name.rpartition('.')[2]}.txt")
    if digest.exists() and digest.read_text(encoding="utf-8") != code_digest.of_module(name):
        raise InputError(
            f"{digest} is not of the present code, which changed after DVC had looked: run dvc repro again"
        )
