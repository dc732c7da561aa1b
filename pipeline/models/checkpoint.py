"""Build a model from its section of params.yaml; save and load models as self-describing weight files."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor

import pipeline
from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS, LABELS
from pipeline.core.paths import replacing
from pipeline.models.classical import FeatureForest
from pipeline.models.network import Network
from pipeline.models.provenance import Provenance

DESCRIPTION = "description"
"""Key of the file's metadata: a JSON object with labels, channels, model (its section of params.yaml), version, and
seen (the samples that the weights have seen, see ``Provenance.to_json``; absent in older files)."""

OTHER_VERSION = "train it again, or use the version that wrote it"

AnyModel = Network | FeatureForest


def build(model: params.Model) -> AnyModel:
    """Build the model that a section describes, with random weights or an empty forest.

    Raises:
        InputError: see ``Network``.
    """
    return FeatureForest(model.seed) if isinstance(model, params.ClassicalModel) else Network(model)


def save(path: Path, network: AnyModel, model: params.Model, provenance: Provenance, *, half: bool = False) -> None:
    """Write weights and their description. The same network gives the same bytes.

    Args:
        path: the file to write.
        network: the model.
        model: its section of params.yaml.
        provenance: the samples that it has seen.
        half: store weight matrices in float16, which halves the file; biases, norms and their statistics stay float32.
    """
    weights = {
        name: tensor.half() if half and tensor.ndim > 1 else tensor for name, tensor in network.state_dict().items()
    }
    write(path, weights, {"model": model.model_dump()}, provenance)


def write(path: Path, weights: dict[str, Tensor], described: dict[str, Any], provenance: Provenance) -> None:
    """Write weights, of a part of a model too, for other models to start from.

    Args:
        path: the file to write.
        weights: by the names that they have in ``Network``.
        described: of the description, what differs from file to file: at least ``model``.
        provenance: the samples that they have seen.
    """
    description = {
        "labels": LABELS,
        "channels": CHANNELS,
        **described,
        "version": pipeline.__version__,
        "seen": provenance.to_json(),
    }
    with replacing(path) as temporary:
        # A single key, because the library writes several keys in random order.
        weights = {name: tensor.contiguous() for name, tensor in weights.items()}
        # Not by save_file, whose files nobody else may read.
        temporary.write_bytes(serialised(weights, {DESCRIPTION: json.dumps(description)}))


def load(path: Path) -> tuple[AnyModel, params.Model]:
    """Read a model written by ``save``, in evaluation mode, and its section of params.yaml.

    Raises:
        InputError: the file is missing or damaged, or was written for other labels or channels, or by a version whose
            models have other parameters or weights.
    """
    weights, description = read(path)
    check_labels(description, path)
    try:
        model = params.parse_model(json.dumps(description["model"]))
        network = build(model)
        network.load_state_dict(weights)
    except ValidationError as error:
        keys = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors())
        raise InputError(f"{path}: its parameters do not fit this version ({keys}): {OTHER_VERSION}") from None
    except RuntimeError:
        raise InputError(f"{path}: its weights do not fit this version's models: {OTHER_VERSION}") from None
    return network.eval(), model


def read(path: Path, remedy: str = "train it again") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read weights and description; the description is empty in files of other programs.

    Args:
        path: the file.
        remedy: for messages.

    Raises:
        InputError: the file is missing or damaged.
        PermissionError: it may not be read.
    """
    try:
        path.open("rb").close()  # safe_open calls a file missing that may not be read
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {}).get(DESCRIPTION, "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, description  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise InputError(f"{path} is missing: train it first (dvc repro)") from None
    except PermissionError:
        raise
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged, or is not a weight file ({error}): {remedy}") from None


def check_labels(description: dict[str, Any], path: Path | str) -> None:
    """Check that a model was trained on this version's labels and channels.

    Raises:
        InputError: they differ, or are in another order.
    """
    for key, expected in (("labels", LABELS), ("channels", CHANNELS)):
        if description.get(key) != list(expected):
            raise InputError(f"{path}: its {key} are not this version's: train it again")
