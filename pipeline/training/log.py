"""The learning curve for programs to read while it grows: JSON lines and, if asked for, TensorBoard."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.errors import InputError
from pipeline.files import replacing
from pipeline.training.history import Row


def write_lines(path: Path, rows: Sequence[Row]) -> None:
    """Write the whole curve, a JSON object an epoch; with what was measured, so not an output of the stage."""
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{json.dumps(dataclasses.asdict(row))}\n" for row in rows))


def tensorboard(folder: Path) -> Callable[[Row], None]:
    """Begin a run in ``folder`` that TensorBoard shows; what is returned adds an epoch to it.

    Raises:
        InputError: the package is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # optional, and slow to import
    except ImportError:
        raise InputError(
            "machine.tensorboard in params.yaml: install the package (pip install tensorboard), or set it to false"
        ) from None
    shutil.rmtree(folder, ignore_errors=True)  # a run that goes on tells its epochs again
    writer = SummaryWriter(folder)

    def add(row: Row) -> None:
        for name, value in dataclasses.asdict(row).items():
            if name != "epoch":
                writer.add_scalar(name, value, row.epoch + 1)
        writer.flush()

    return add
