"""Where every artifact lives, relative to the project's root (the working folder of every stage)."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DATA = Path("data")
FOLDS = DATA / "folds.csv"
DUPLICATES = DATA / "duplicates.csv"
FOLDS_AUDIT = DATA / "folds-audit.json"
BLEND = Path("blend")
METRICS = Path("metrics.json")
TABLES = Path("tables")
PLOTS = Path("plots")
SUBMISSION = Path("submission.csv")
RESUME = Path(".resume")
"""What an interrupted stage goes on from: outside DVC's outputs, which DVC deletes before a stage runs."""
REPORT = Path("report.html")


def source(name: str) -> Path:
    """The folder a source's archive is placed in (with ``groups.csv`` and ``test_truth.csv`` where known)."""
    return DATA / name


def packed_images(name: str) -> Path:
    """All images of a source as one array."""
    return DATA / "packed" / "images" / f"{name}.npy"


def packed_index(name: str) -> Path:
    """What is known of each image of a source, a row per image in the array's order."""
    return DATA / "packed" / "index" / f"{name}.csv"


def contact_sheet(name: str) -> Path:
    """Example images of a source."""
    return DATA / "contact-sheets" / f"{name}.png"


def code(stage: str) -> Path:
    """The digest of a stage's code."""
    return Path("code-digests") / f"{stage}.txt"


def model(name: str, fold: int) -> Path:
    """The weights trained without ``fold``."""
    return Path("models") / name / f"fold-{fold}.safetensors"


def history(name: str, fold: int) -> Path:
    """The learning curve of one model and fold, a row per epoch."""
    return Path("history") / name / f"fold-{fold}.csv"


def log(name: str, fold: int) -> Path:
    """The learning curve as it grows, with what was measured: beside the run, like all of ``logs/``."""
    return Path("logs") / f"{name}-{fold}.jsonl"


def tensorboard(name: str, fold: int) -> Path:
    """The same for TensorBoard, if asked for."""
    return Path("logs") / "tensorboard" / f"{name}-{fold}"


def predictions(name: str, fold: int) -> Path:
    """Held-out and test probabilities of one model and fold."""
    return Path("predictions") / name / f"fold-{fold}.npz"


def maps(name: str) -> Path:
    """Attention maps of one model on the examples of ``tables/examples.csv``."""
    return Path("maps") / f"{name}.npz"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` (file or folder) that takes its place when the block succeeds.

    When the block fails, the temporary is removed and whatever stood at ``path`` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    _remove(temporary)
    try:
        yield temporary
        if temporary.is_dir():
            _remove(path)
        temporary.replace(path)
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
