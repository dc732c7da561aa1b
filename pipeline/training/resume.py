"""What an interrupted training goes on from: its state after a step."""

import hashlib
import importlib.metadata
import io
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.files import replacing

KEPT = 2
"""The newest state, and the one before in case the newest is damaged."""

PACKAGES = ("torch", "timm", "numpy", "opencv-python-headless", "albumentations")
"""Another version of one of these may compute other bytes."""


@dataclass(frozen=True)
class States:
    """The saved states of one run.

    Args:
        cell: the folder of a model and fold.
        run: the run's fingerprint, so that a run of other parameters, data or code never finds them.
    """

    cell: Path
    run: str

    @property
    def folder(self) -> Path:
        """Where this run's states are."""
        return self.cell / self.run

    def save(self, epoch: int, step: int, state: dict[str, Any]) -> None:
        """Save what the steps up to ``step`` of ``epoch`` led to; the file's name carries its content's digest."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        name = f"epoch-{epoch:05d}-step-{step:07d}-{hashlib.sha256(content).hexdigest()}.pt"
        with replacing(self.folder / name) as temporary:
            temporary.write_bytes(content)
        for old in self._newest_first()[KEPT:]:
            old.unlink()

    def newest(self) -> dict[str, Any] | None:
        """The newest undamaged state, or nothing."""
        for path in self._newest_first():
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() == path.stem.rpartition("-")[2]:
                state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
                return state
        return None

    def remove_others(self) -> None:
        """Make room: forget the runs of other parameters, data or code."""
        for old in self.cell.glob("*"):
            if old.name != self.run:
                shutil.rmtree(old)

    def remove(self) -> None:
        """Forget the run, if anything was saved of it: it has ended."""
        if self.cell.exists():
            shutil.rmtree(self.cell)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("epoch-*.pt"), reverse=True)


def fingerprint(described: str, files: Iterable[Path]) -> str:
    """Name a run by everything that its result depends on, the versions of what computes it included.

    Args:
        described: its parameters, in words that change when one of them does.
        files: its data and its code; read whole.
    """
    versions = [importlib.metadata.version(package) for package in PACKAGES]
    digest = hashlib.sha256(f"{described}\n{versions}\n{torch.cuda.is_available()}\n".encode())
    for path in files:
        digest.update(f"{path}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]
