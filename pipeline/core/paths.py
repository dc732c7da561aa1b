"""Paths of all artifacts, relative to the project's root folder, in which every stage runs."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DATA = Path("data")
PACKED = DATA / "packed"
"""The largest outputs. May be a link to a folder on another disk."""
CONTACT_SHEETS = DATA / "contact-sheets"
FOLDS = DATA / "folds.csv"
DUPLICATES = DATA / "duplicates.csv"
FOLDS_AUDIT = DATA / "folds-audit.json"
BLEND = Path("blend")
REFERENCE = Path("reference.npz")
"""Embeddings and channel statistics of the training samples."""
METRICS = Path("metrics.json")
TABLES = Path("tables")
TEST_LEAK = TABLES / "test-leak.csv"
"""Test samples that a further source shows too, with its labels."""
PLOTS = Path("plots")
SUBMISSION = Path("submission.csv")
KAGGLE_SCORES = Path("submissions") / "kaggle-scores.csv"
"""Kaggle's scores of what was handed in. The folder is in git, because the stage ``report`` depends on it."""
LEAK_CORRECTED = Path("submission-leak-corrected.csv")
"""A submission that uses these labels. Not a DVC output, and nothing reads it."""
RESUME = Path(".resume")
"""Saved states from which interrupted stages resume. They are no DVC outputs: DVC deletes those before a stage runs."""
REPORT = Path("report.html")
SEARCH = Path("search")
"""Results of searches, a folder for each study. Not DVC outputs."""


def source(name: str) -> Path:
    """Folder with a source's archive, and with ``groups.csv`` and ``test_truth.csv`` if they are known."""
    return DATA / name


def packed_images(name: str) -> Path:
    """Array of all images of a source."""
    return PACKED / "images" / f"{name}.npy"


def partly_packed(name: str) -> Path:
    """Folder with what an interrupted run of ``pack`` has written, on the same disk as what it will become."""
    return PACKED / ".partial" / name


def packed_index(name: str) -> Path:
    """Table of a source's images: one row per image, in the order of the array."""
    return PACKED / "index" / f"{name}.csv"


def contact_sheet(name: str) -> Path:
    """Picture with example images of a source."""
    return CONTACT_SHEETS / f"{name}.png"


def code(stage: str) -> Path:
    """Digest of a stage's code."""
    return Path("code-digests") / f"{stage}.txt"


def model_params(name: str) -> Path:
    """A model's whole section of params.yaml, with what it takes from the template of its kind."""
    return Path("model-params") / f"{name}.json"


def encoder_params(name: str) -> Path:
    """What pre-training reads of a model's section: all that determines its backbone and the images it sees."""
    return Path("model-params") / f"{name}.encoder.json"


def model(name: str, fold: int) -> Path:
    """Weights of a model that was trained without ``fold``."""
    return Path("models") / name / f"fold-{fold}.safetensors"


def history(name: str, fold: int) -> Path:
    """Learning curve of a job (a model and a fold): one row per epoch."""
    return Path("history") / name / f"fold-{fold}.csv"


def log(name: str, fold: int) -> Path:
    """Log of a running job: learning curve and throughput. Not a DVC output, like everything in ``logs/``."""
    return Path("logs") / f"{name}-{fold}.jsonl"


def tensorboard(name: str, fold: int) -> Path:
    """TensorBoard log of a job, if ``machine.tensorboard`` is true."""
    return Path("logs") / "tensorboard" / f"{name}-{fold}"


def states(name: str, fold: int) -> Path:
    """Folder for the saved states of a job's training."""
    return RESUME / "train" / f"{name}-{fold}"


def autoencoder(name: str) -> Path:
    """Encoder of a model that was pre-trained without labels, from which ``pretrained: stage`` starts."""
    return Path("autoencoders") / f"{name}.safetensors"


def pretraining_history(name: str) -> Path:
    """Learning curve of a pre-training: one row per epoch."""
    return Path("autoencoders") / f"{name}.csv"


def reconstructions(name: str) -> Path:
    """Images as a pre-trained autoencoder has seen and reconstructed them."""
    return Path("autoencoders") / f"{name}.npz"


def reconstruction_sheet(name: str) -> Path:
    """Picture of these reconstructions."""
    return Path("reconstructions") / f"{name}.png"


def pretraining_states(name: str) -> Path:
    """Folder for the saved states of a pre-training."""
    return RESUME / "pretrain" / name


def predictions(name: str, fold: int) -> Path:
    """Probabilities of a job for its held-out fold and for the test set."""
    return Path("predictions") / name / f"fold-{fold}.npz"


def maps(name: str) -> Path:
    """Attention maps of a model for the examples in ``tables/examples.csv``."""
    return Path("maps") / f"{name}.npz"


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of writing to a disk that is full, or to a file that becomes too large."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` (file or folder), which replaces ``path`` when the block succeeds.

    When the block fails, the temporary file or folder is removed and ``path`` is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    _remove(temporary)
    try:
        yield temporary
        if temporary.is_dir():
            _remove(path)
        temporary.replace(path)
    except OSError as error:
        if error.errno in FULL and not error.filename:
            error.filename = str(path)  # errors of writing do not name the file
        raise
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
