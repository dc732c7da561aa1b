"""The saved states of an interrupted training, and the fingerprint that tells one run from another."""

import hashlib
import importlib.metadata
import io
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.core import hardware
from pipeline.core.paths import replacing

KEPT = 2
"""The newest state, and the one before in case the newest is damaged."""

PACKAGES = ("torch", "timm", "numpy", "opencv-python-headless", "albumentations")
"""Another version of one of these may compute other bytes."""


@dataclass(frozen=True)
class SavedStates:
    """The saved states of one run.

    States of other parameters, data or code have another fingerprint. They are neither used nor deleted until a run of
    the job has ended: whoever goes back to the old parameters resumes where they left off.

    Args:
        job: the folder of a model and fold.
        run: the run's fingerprint.
    """

    job: Path
    run: str

    @property
    def folder(self) -> Path:
        """Where this run's states are."""
        return self.job / self.run

    def save(self, epoch: int, step: int, state: dict[str, Any]) -> None:
        """Save the state after ``step`` of ``epoch``; the file's name contains the digest of its content."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        name = f"epoch-{epoch:05d}-step-{step:07d}-{hashlib.sha256(content).hexdigest()}.pt"
        with replacing(self.folder / name) as temporary:
            temporary.write_bytes(content)
        for old in self._newest_first()[KEPT:]:
            old.unlink()

    def newest(self) -> dict[str, Any] | None:
        """The newest undamaged state, or None."""
        for path in self._newest_first():
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() == path.stem.rpartition("-")[2]:
                state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
                return state
        return None

    def remove_job(self) -> None:
        """Delete all states of the job, of other parameters too: a run has ended and its outputs are written."""
        if self.job.exists():
            shutil.rmtree(self.job)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("epoch-*.pt"), reverse=True)


def fingerprint(described: str, files: Iterable[Path]) -> str:
    """Identify a run by everything its result depends on, including the versions of the libraries that compute it.

    Args:
        described: its parameters and code, as text that changes when one of them does.
        files: its data; read whole.
    """
    versions = [importlib.metadata.version(package) for package in PACKAGES]
    digest = hashlib.sha256(f"{described}\n{versions}\n{hardware.device().type}\n".encode())
    for path in files:
        digest.update(f"{path}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]
