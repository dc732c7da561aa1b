"""Where every artifact lives, relative to the project's root (the working folder of every stage)."""

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


def packed(name: str) -> Path:
    """The packed form of a source: ``images.npy``, ``index.csv``, ``contact-sheet.png``."""
    return DATA / "packed" / name


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
