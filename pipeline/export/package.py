"""Write a package: the graph, its description, a script, test samples and a cover, checked before it gets its name."""

import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ruamel.yaml import YAML

import pipeline
from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS, LABELS
from pipeline.core.paths import replacing
from pipeline.core.progress import say
from pipeline.evaluation.decision_rule import DecisionRule
from pipeline.export import bioimage, documents, graphs, sessions, standalone
from pipeline.export.ends import Decision, ViewMaker
from pipeline.export.selection import Selection
from pipeline.inference.trained_models import mean_attention_maps, predict
from pipeline.reporting.pictures import composite, overlay
from pipeline.sources.images import Image, encode_png, fit

COVER = 288
"""Side of both pictures of the cover, in pixels; the zoo wants less than 500 KB, and an aspect ratio of 1:1 or 2:1."""

CREATED = (1980, 1, 1, 0, 0, 0)
"""The date of the files in the zip, so that the same run gives the same bytes."""


def check_replaceable(out: Path) -> None:
    """Check that writing a package replaces nothing but an earlier one.

    Raises:
        InputError: the path is another file, such as a zip of images.
    """
    if not out.exists():
        return
    try:
        with zipfile.ZipFile(out) as archive:
            earlier = bioimage.DESCRIPTION in archive.namelist()
    except zipfile.BadZipFile:
        earlier = False
    if not earlier:
        raise InputError(f"--out {out} exists and is no package of this command: name another file, or move it away")


def write(
    out: Path, selection: Selection, examples: Image, settings: params.Params, license_: str, authors: Sequence[str]
) -> None:
    """Write the package of a selection.

    Args:
        out: the zip to write.
        selection: what is exported.
        examples: (2, S, S, 4) uint8, test samples.
        settings: of the run: ``pack.size`` and the sources.
        license_: an SPDX identifier.
        authors: names.

    Raises:
        InputError: a network cannot be exported, the graph's probabilities are not those of the networks, or the
            package is not valid.
    """
    sources, packed = settings.data.sources, settings.pack.size
    rule = decisions(selection, packed)
    with replacing(out) as temporary:
        folder = temporary.with_name(f"{temporary.name}-files")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            write_graph(folder / "model.onnx", selection, packed, rule)
            tested = checked(folder / "model.onnx", selection, examples)
            np.save(folder / "test_input.npy", examples.transpose(0, 3, 1, 2))
            np.save(folder / "test_output.npy", tested)
            (folder / "cover.png").write_bytes(encode_png(cover(selection, examples, tested)))
            (folder / "decisions.json").write_text(json.dumps(rule, indent=2) + "\n", encoding="utf-8")
            shutil.copyfile(standalone.__file__, folder / "predict.py")
            (folder / "README.md").write_text(
                documents.readme(selection, sources, packed, license_, authors), encoding="utf-8"
            )
            described = bioimage.Described(
                documents.title(selection),
                documents.summary(selection, sources),
                authors,
                license_,
                documents.training_data(selection, sources),
                documents.LIMITS,
                pipeline.__version__,
            )
            with (folder / bioimage.DESCRIPTION).open("w", encoding="utf-8") as file:
                YAML(typ="safe", pure=True).dump(bioimage.description(folder, described, rule), file)
            bioimage.validate(folder, out)
            _zip(folder, temporary)
        finally:
            shutil.rmtree(folder)


def decisions(selection: Selection, packed: int) -> dict[str, Any]:
    """Labels, thresholds and the composition of the graph, as data."""
    rule: DecisionRule = selection.rule
    return {
        "labels": list(LABELS),
        "channels": list(CHANNELS),
        "thresholds": rule.thresholds.tolist(),
        "size": packed,
        "views": list(selection.views),
        "blend": rule.blender.kind,
        "weights": dict(zip(selection.models, rule.blender.weights.tolist(), strict=True)),
        "networks": {name: len(folds) for name, folds in selection.models.items()},
        "slope": rule.calibration.slope,
        "offsets": rule.calibration.offsets.tolist(),
    }


def write_graph(path: Path, selection: Selection, packed: int, rule: dict[str, Any]) -> None:
    """Write the decision path of a selection as ONNX."""
    networks = selection.networks
    preparation = ViewMaker(packed, sorted({size for _, size, _ in networks}), selection.views)
    decision = Decision(selection.rule, [len(folds) for folds in selection.models.values()], len(selection.views))
    graphs.export(networks, preparation, decision, rule, path=path)


def checked(path: Path, selection: Selection, examples: Image) -> npt.NDArray[np.float32]:
    """The graph's probabilities of the test samples, (2, 28), after a comparison with those of the networks.

    Also compared are a single sample and images of another side, which take other branches of the graph.

    Raises:
        InputError: they differ, so the graph computes something else.
    """
    session = sessions.open_session(path)
    side = examples.shape[1]
    cases = [examples, examples[:1], np.pad(examples, ((0, 0), (0, side), (0, side), (0, 0)), mode="symmetric")]
    differences = []
    for images in cases:
        fitted = np.stack([fit(image, side) for image in images])
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # of a GPU, whose products would be too coarse
            _, expected, _ = selection.rule.apply(predict(selection.models, fitted, selection.views))
        differences.append(float(np.abs(sessions.run(session, images) - expected).max()))
    if not max(differences) <= bioimage.TOLERANCE:
        raise InputError(
            f"the probabilities of the exported graph differ by {max(differences):.2g} from those of the networks: "
            "leave out the model that cannot be exported, or choose another backbone or attention"
        )
    say(f"largest difference of a probability between ONNX and torch (fp32): {max(differences):.1g}")
    return sessions.run(session, examples)


def cover(selection: Selection, examples: Image, probabilities: npt.NDArray[np.float32]) -> Image:
    """The first sample as a colour composite, and the attention map for its most probable label: (S, 2 S, 3)."""
    maps = mean_attention_maps(selection.models, examples[:1], [int(probabilities[0].argmax())])
    shown = fit(examples[0], COVER)
    return np.hstack([composite(shown), overlay(shown, maps[0])])


def _zip(folder: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.writestr(zipfile.ZipInfo(file.name, CREATED), file.read_bytes(), zipfile.ZIP_DEFLATED)
