"""The description of a package for the BioImage Model Zoo, and its validation. The only module with bioimageio.

Format: https://bioimage-io.github.io/spec-bioimage-io (model description 0.5).
"""

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS, LABELS
from pipeline.export.graphs import INPUT, OPSET, OUTPUT

FORMAT = "0.5.12"
"""Not the newest, since bioimageio.core 0.11 reads no newer one."""
DESCRIPTION = "rdf.yaml"
"""Name of the description, by which the zoo's programs recognise a package."""
SMALLEST = 32
"""Side of the smallest images, as in ``pack.size``."""

LONGEST = 300
"""Characters of one of the validator's reasons, in a message."""

TOLERANCE = 1e-4
"""Largest difference of a probability between machines."""


@dataclass(frozen=True)
class Described:
    """What a person says of a package.

    Attributes:
        name: its title.
        description: one paragraph.
        authors: their names.
        license: an SPDX identifier.
        training_data: name and description.
        limits: what it should not be used for.
        version: of this project.
    """

    name: str
    description: str
    authors: Sequence[str]
    license: str
    training_data: tuple[str, str]
    limits: str
    version: str


def check_names(license_: str, authors: Sequence[str]) -> None:
    """Check what a person says of a package, before the work: a wrong name would be found at its end.

    Args:
        license_: an SPDX identifier.
        authors: their names.

    Raises:
        InputError: bioimageio.spec does not accept one of them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that it imports
        from bioimageio.spec.model.v0_5 import Author, DeprecatedLicenseId, LicenseId
    if not any(_accepts(kind, license_) for kind in (LicenseId, DeprecatedLicenseId)):
        raise InputError(f"--license {license_}: give an SPDX identifier as on https://spdx.org/licenses, such as MIT")
    for name in authors:
        if not (name.strip() and _accepts(lambda text: Author(name=text), name)):
            raise InputError(f"--author {name!r}: give a name without a slash")


def description(folder: Path, described: Described, rule: Mapping[str, object]) -> dict[str, Any]:
    """The content of rdf.yaml for a folder with all other files of the package."""
    data, about_data = described.training_data
    return {
        "type": "model",
        "format_version": FORMAT,
        "name": described.name,
        "description": described.description,
        "version": described.version,
        "authors": [{"name": name} for name in described.authors],
        "license": described.license,
        "tags": [
            "classification", "multi-label-classification", "fluorescence-light-microscopy", "2d", "cells", "protein",
            "subcellular-localization", "human-protein-atlas", "pytorch", "onnx",
        ],
        "documentation": _file(folder, "README.md"),
        "covers": [_file(folder, "cover.png")],
        "attachments": [_file(folder, name) for name in ("predict.py", "decisions.json")],
        "inputs": [
            {
                "id": INPUT,
                "description": "Square 8-bit images of the four stains, as exposed: the model normalises them",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": list(CHANNELS)},
                    {"type": "space", "id": "y", "size": {"min": SMALLEST, "step": 1}},
                    {"type": "space", "id": "x", "size": {"tensor_id": INPUT, "axis_id": "y"}},
                ],
                "data": {"type": "uint8"},
                "test_tensor": _file(folder, "test_input.npy"),
                "preprocessing": [],
            }
        ],
        "outputs": [
            {
                "id": OUTPUT,
                "description": "Calibrated probability of each location; compare with the thresholds in decisions.json",
                "axes": [{"type": "batch"}, {"type": "channel", "channel_names": list(LABELS)}],
                "data": {"type": "float32", "range": [0.0, 1.0]},
                "test_tensor": _file(folder, "test_output.npy"),
                "postprocessing": [],
            }
        ],
        "weights": {"onnx": {**_file(folder, "model.onnx"), "opset_version": OPSET}},
        "training_data": {
            "type": "dataset",
            "format_version": "0.3.0",
            "name": data,
            "description": about_data,
            "authors": [{"name": name} for name in described.authors],
        },
        "config": {
            "bioimageio": {
                "reproducibility_tolerance": [{"absolute_tolerance": TOLERANCE, "relative_tolerance": 0.0}],
                "task": "multi-label classification of protein localisation",
                "modality": "fluorescence microscopy",
                "target_structure": list(LABELS),
                "bias_risks_limitations": {"limitations": described.limits},
            },
            "decisions": dict(rule),
        },
    }  # fmt: skip


def validate(folder: Path, name: Path) -> None:
    """Validate the files of a package, before they are zipped, with bioimageio.spec.

    Raises:
        InputError: it is not valid.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that it imports
        from bioimageio.spec import load_description
        from loguru import logger

        logger.disable("bioimageio")
        summary = load_description(folder / DESCRIPTION, perform_io_checks=True).validation_summary
    # Shortened, since some of them list all allowed values.
    problems = [shorten(f"{'.'.join(map(str, error.loc))}: {error.msg}", LONGEST) for error in summary.errors]
    if problems or summary.status == "failed":
        found = "; ".join(dict.fromkeys(problems)) or summary.status
        raise InputError(f"{name} was not written, since bioimageio.spec does not accept it: {found}")


def _accepts(kind: Callable[[str], object], text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def _file(folder: Path, name: str) -> dict[str, str]:
    return {"source": name, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}
