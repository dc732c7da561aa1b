"""Speed and agreement of an exported package: ``python -m benchmarks.export PACKAGE.zip``, in the folder of its run.

The package's graph and torch predict the same images in interleaved rounds, on all cores: torch in float32, which the
graph computes too, and in the precision that ``predict`` chooses by itself (bf16 where the processor has AMX). Decoding
is not timed, resizing is. Then both predict all test images of the packed source, and their probabilities and decisions
are compared. With ``--quantised``, the weights and activations of the convolutions are also reduced to 8 bits (static
quantisation, calibrated on training images), and the macro-F1 that this costs on the test set is given with its
interval.

The last line is JSON: ``onnx_over_torch`` is a ratio of throughput, the median of the rounds; above 1, the graph is
faster. ``onnx_over_predict`` is the same against the precision that ``predict`` chooses.
"""

import argparse
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.interleaved import measure, ratio, report
from pipeline.core import params, paths
from pipeline.core.entry import run_main
from pipeline.core.labels import target_matrix
from pipeline.core.progress import track
from pipeline.evaluation.intervals import difference
from pipeline.evaluation.metrics import Bools, Floats, macro_f1
from pipeline.evaluation.thresholds import decide
from pipeline.export.graphs import INPUT
from pipeline.export.selection import select
from pipeline.export.sessions import open_session, run
from pipeline.inference.fold_model import FoldModel
from pipeline.inference.trained_models import LoadedModels, predict
from pipeline.sources.images import Image
from pipeline.sources.packed_array import open_images, read_index

if TYPE_CHECKING:
    import onnxruntime

CALIBRATION = 32
"""Training images for the ranges of activations."""


def with_precision(models: LoadedModels, precision: params.Precision) -> LoadedModels:
    """The same networks, computing in another precision."""
    return {
        name: [FoldModel(model.network, model.recipe.model_copy(update={"precision": precision})) for model in folds]
        for name, folds in models.items()
    }


def quantised(graph: Path, into: Path, images: Image) -> None:
    """Reduce weights and activations of the convolutions to 8 bits, with ranges from some images."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        """Images one by one."""

        def __init__(self) -> None:
            self.left: Iterator[Image] = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.left, None)
            return None if image is None else {INPUT: np.ascontiguousarray(image.transpose(2, 0, 1)[None])}

    prepared = into.with_suffix(".prepared.onnx")
    quant_pre_process(str(graph), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(into),
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def all_of(session: "onnxruntime.InferenceSession", images: Image, batch: int, what: str) -> Floats:
    """Probabilities of many images, (N, 28)."""
    starts = range(0, len(images), batch)
    return np.concatenate([run(session, images[start : start + batch]) for start in track(starts, what)])


def main(package: Path, batch: int, rounds: int, samples: int | None = None, *, eight_bits: bool) -> dict[str, float]:
    """Measure, print, and return the figures.

    Args:
        package: a zip.
        batch: images per call.
        rounds: measured rounds.
        samples: number of test samples to compare; None is all.
        eight_bits: also measure a quantised graph.
    """
    settings = params.load()
    source = settings.data.sources[0]
    index, packed = read_index(source), open_images(source)
    rows = index.loc[index["split"] == "test", "row"].to_numpy()
    images = np.ascontiguousarray(packed[rows[:batch]])
    with tempfile.TemporaryDirectory() as name, zipfile.ZipFile(package) as archive:
        rule = json.loads(archive.read("decisions.json"))
        single = sum(rule["networks"].values()) == 1
        selection = select(Path("models"), settings, fast=single)
        graph = Path(archive.extract("model.onnx", name))
        sessions = {"onnx": open_session(graph)}
        if eight_bits:
            train = index.loc[index["split"] == "train", "row"].to_numpy()[:CALIBRATION]
            quantised(graph, Path(name, "int8.onnx"), packed[np.sort(train)])
            sessions["onnx int8"] = open_session(Path(name, "int8.onnx"))

        def by_torch(precision: params.Precision) -> Callable[[], Floats]:
            models = with_precision(selection.models, precision)
            return lambda: predict(models, images, selection.views)

        def by_onnx(session: "onnxruntime.InferenceSession") -> Callable[[], Floats]:
            return lambda: run(session, images)

        cases = {case: by_onnx(session) for case, session in sessions.items()}
        cases |= {"torch fp32": by_torch("fp32"), "torch auto": by_torch("auto")}
        seconds = measure(cases, rounds)

        thresholds = np.array(rule["thresholds"])
        tested = np.ascontiguousarray(packed[rows[:samples]])
        found = {case: all_of(session, tested, batch, case) for case, session in sessions.items()}
        for precision in ("fp32", "auto"):
            models = with_precision(selection.models, precision)
            parts = [
                selection.rule.apply(predict(models, tested[start : start + batch], selection.views))[1]
                for start in track(range(0, len(tested), batch), f"torch {precision}")
            ]
            found[f"torch {precision}"] = np.concatenate(parts)
    decided = {case: decide(probabilities, thresholds) for case, probabilities in found.items()}
    figures: dict[str, float] = {
        "onnx_over_torch": ratio(seconds, "torch fp32", "onnx"),
        "onnx_over_predict": ratio(seconds, "torch auto", "onnx"),
        "largest_difference": float(np.abs(found["onnx"] - found["torch fp32"]).max()),
        "other_decisions": int((decided["onnx"] != decided["torch fp32"]).any(axis=1).sum()),
        "other_decisions_of_predict": int((decided["torch auto"] != decided["torch fp32"]).any(axis=1).sum()),
        "samples": len(tested),
    }
    if eight_bits:
        figures |= {
            "int8_over_onnx": ratio(seconds, "onnx", "onnx int8"),
            **_lost(decided["onnx"], decided["onnx int8"], index[index["split"] == "test"][:samples], settings),
        }
    table = pd.DataFrame({"case": list(seconds)})
    table["ms per image"] = [1e3 * float(np.median(seconds[case])) / batch for case in seconds]
    table["largest difference to torch fp32"] = [np.abs(found[case] - found["torch fp32"]).max() for case in seconds]
    report(table, figures)
    return figures


def _lost(full: Bools, reduced: Bools, test: pd.DataFrame, settings: params.Params) -> dict[str, float]:
    """The change in macro-F1 on the test set, with the paired interval; empty if its labels are unknown."""
    path = paths.source(settings.data.sources[0]) / "test_truth.csv"
    if not path.exists():
        return {}
    known = pd.read_csv(path, dtype=str).set_index("Id")["Target"]
    truth = target_matrix(known.loc[test["id"]])
    groups = test["group"].where(test["group"] != "", test["id"]).to_numpy(dtype=np.str_)
    found, _ = difference(full, reduced, truth, groups, settings.score)
    return {
        "test_macro_f1": macro_f1(full, truth),
        "int8_change": found.estimate,
        "int8_change_low": found.low,
        "int8_change_high": found.high,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="zip that `python -m pipeline export` wrote from the run here")
    parser.add_argument("--batch", type=int, default=4, help="images per call (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default: %(default)s)")
    parser.add_argument("--samples", type=int, help="test samples to compare (default: all)")
    parser.add_argument("--quantised", action="store_true", help="also measure a graph of 8 bits")
    given = parser.parse_args()

    def _command() -> None:
        main(given.package, given.batch, given.rounds, given.samples, eight_bits=given.quantised)

    run_main(_command)
