"""Running exported graphs. The only module, apart from the package's own script, with onnxruntime."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.core import processors
from pipeline.export.graphs import INPUT

if TYPE_CHECKING:
    import onnxruntime


def open_session(path: Path) -> "onnxruntime.InferenceSession":
    """Load a graph for the CPU, with a thread per core that this process may use."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = processors.usable()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(session: "onnxruntime.InferenceSession", images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Probabilities (N, 28) of images (N, H, H, 4) uint8."""
    found: npt.NDArray[np.float32] = session.run(None, {INPUT: np.ascontiguousarray(images.transpose(0, 3, 1, 2))})[0]
    return found
