"""The decision path as one ONNX graph, from images to calibrated probabilities. The only module with ONNX."""

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pipeline.core import optional_packages
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS, LABELS
from pipeline.core.progress import track
from pipeline.export.ends import Decision, ViewMaker
from pipeline.export.exportable import Probabilities, exportable_operations
from pipeline.models.network import Network

if TYPE_CHECKING:
    import onnx

OPSET = 20
"""Version of the ONNX operators: that of torch's exporter, which onnxruntime 1.17 and newer know."""

INPUT, OUTPUT = "images", "probabilities"
"""Names of the graph's input and output."""

MOST_BYTES = 2**31 - 2**20
"""A file of the format cannot be larger."""

Networks = Sequence[tuple[str, int, Network]]
"""Name, input size and network of every fold of every model, model by model."""


def check_installed() -> None:
    """Check that the optional packages of the export are there.

    Raises:
        InputError: one is missing.
    """
    packages = ("onnx", "onnxscript", "onnxruntime", "bioimageio.spec")
    optional_packages.check_installed("the export", packages, "requirements-export.txt")


def export(
    networks: Networks, preparation: ViewMaker, decision: Decision, described: Mapping[str, object], *, path: Path
) -> None:
    """Write the graph: images (N, 4, H, H) uint8 to probabilities (N, 28), for any N and H.

    Args:
        networks: in the order of ``decision``, in evaluation mode.
        preparation: has an output for each size of the networks.
        decision: blends their probabilities.
        described: data to store in the file, by key, as JSON.
        path: the file to write.

    Raises:
        InputError: an operation of a network cannot be exported, or the file would be larger than the format allows.
    """
    import onnx

    sides = {size: f"views_{size}" for size in preparation.sizes}
    example = torch.zeros(2, len(CHANNELS), preparation.fit.size + 1, preparation.fit.size + 1, dtype=torch.uint8)
    side = torch.export.Dim("side", min=2)
    parts = [_part(preparation, (example,), ({0: _BATCH, 2: side, 3: side},), [INPUT], list(sides.values()), "images")]
    exporter = _NetworkExporter()
    for number, (name, size, network) in enumerate(track(networks, "exporting", total=len(networks), unit="networks")):
        parts.append(exporter.part(name, Probabilities(network), size, sides[size], f"network_{number}"))
    # Different tensors, since the exporter takes equal ones for a single input.
    found = tuple(torch.zeros(2 * decision.views, len(LABELS)) for _ in networks)
    names = [f"network_{number}" for number in range(len(networks))]
    samples = ({0: _SAMPLES * decision.views},) * len(networks)
    parts.append(_part(decision, found, (samples,), names, [OUTPUT], "decision"))
    model = _join(parts)
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in described.items()})
    if model.ByteSize() > MOST_BYTES:
        raise InputError(f"{path}: larger than the 2 GiB of an ONNX file: export fewer models, or use --fast")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


_BATCH = torch.export.Dim("batch", min=1)
_SAMPLES = torch.export.Dim("samples", min=1)


class _Weights(nn.Module):
    """A module whose weights are inputs, so that one graph serves all folds of a model."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = [module]  # in a list, so that its weights are not this module's
        self._names = list(module.state_dict())

    def forward(self, images: Tensor, weights: list[Tensor]) -> Tensor:
        """As the module, with other weights, in the order of its ``state_dict``."""
        named = dict(zip(self._names, weights, strict=True))
        found: Tensor = torch.func.functional_call(self._module[0], named, (images,))
        return found


class _NetworkExporter:
    """Exports networks; those that differ in their weights alone share the graph, which takes most of the time."""

    def __init__(self) -> None:
        self._name = ""
        self._shapes: dict[str, torch.Size] = {}
        self._graph: onnx.ModelProto | None = None

    def part(self, name: str, network: Probabilities, size: int, views: str, output: str) -> "onnx.ModelProto":
        """The graph of a network, from its views (B, 4, size, size) to its probabilities.

        Args:
            name: of its model.
            network: a fold's.
            size: side of its input.
            views: name of the input.
            output: name of the output.
        """
        import onnx

        weights = {key: value.detach() for key, value in network.state_dict().items()}
        shapes = {key: value.shape for key, value in weights.items()}
        if self._graph is None or (name, shapes) != (self._name, self._shapes):
            example = torch.zeros(2, len(CHANNELS), size, size)
            dynamic = ({0: _BATCH}, [None] * len(weights))
            inputs, values = [views, *weights], list(weights.values())
            self._graph = _part(_Weights(network), (example, values), dynamic, inputs, ["probabilities"], name)
            self._name, self._shapes = name, shapes
        model = onnx.ModelProto()
        model.CopyFrom(self._graph)
        graph = model.graph
        used = {name for node in graph.node for name in node.input}
        graph.initializer.extend(
            onnx.numpy_helper.from_array(value.numpy(), key) for key, value in weights.items() if key in used
        )
        kept = [value for value in graph.input if value.name == views]
        del graph.input[:]
        graph.input.extend(kept)
        return _renamed(model, output)


def _part(
    module: nn.Module,
    example: tuple[Any, ...],
    dynamic: tuple[Any, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    name: str,
) -> "onnx.ModelProto":
    """One part of the path; ``dynamic`` has the dynamic dimensions of each argument."""
    with torch.no_grad(), exportable_operations(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecations within the exporter
        _silence_exporter()
        try:
            program = torch.onnx.export(
                module.eval(),
                example,
                dynamo=True,
                dynamic_shapes=dynamic,
                input_names=list(inputs),
                output_names=list(outputs),
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise InputError(
                f"{name} cannot be exported to ONNX ({_first_line(error)}): leave this model out of the blend, or "
                "choose another backbone or attention"
            ) from None
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model


def _renamed(model: "onnx.ModelProto", output: str) -> "onnx.ModelProto":
    """Rename the only output of a graph."""
    before = model.graph.output[0].name
    for node in model.graph.node:
        for position, name in enumerate(node.output):
            if name == before:
                node.output[position] = output
    model.graph.output[0].name = output
    return model


def _join(parts: Sequence["onnx.ModelProto"]) -> "onnx.ModelProto":
    """One model of all parts, whose outputs have the names of later parts' inputs."""
    import onnx

    # Names repeat from part to part. Inputs and outputs keep theirs, by which the parts are connected, and so does the
    # first part: its branches use names from around them, which ``add_prefix`` would miss.
    first, *others = parts
    parts = [
        first,
        *(
            onnx.compose.add_prefix(part, f"{number}/", rename_inputs=False, rename_outputs=False)
            for number, part in enumerate(others)
        ),
    ]
    graph = onnx.helper.make_graph(
        [node for part in parts for node in part.graph.node],
        "decision_path",
        list(parts[0].graph.input),
        list(parts[-1].graph.output),
        [value for part in parts for value in part.graph.initializer],
    )
    _strip(graph)
    model = onnx.helper.make_model(graph, producer_name="", ir_version=parts[0].ir_version)
    del model.opset_import[:]
    model.opset_import.extend(parts[0].opset_import)
    return model


def _strip(graph: "onnx.GraphProto") -> None:
    """Remove unused constants, and the exporter's notes for debugging: traces with the paths of this machine."""
    used = _used(graph)
    kept = [value for value in graph.initializer if value.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    for noted in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del noted.metadata_props[:]
        noted.doc_string = ""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _strip(attribute.g)
    del graph.metadata_props[:]
    del graph.value_info[:]


def _used(graph: "onnx.GraphProto") -> set[str]:
    """The names that the nodes and the output of a graph and of its branches use."""
    found = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    branches = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return found.union(*map(_used, branches))


def _silence_exporter() -> None:
    for name in ("torch.onnx", "torch.__trace", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _first_line(error: BaseException) -> str:
    return str(error.__cause__ or error).strip().partition("\n")[0]
