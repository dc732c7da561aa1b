"""The page and its parts as HTML."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.app.analysis import Analysis
from pipeline.app.likeness import stain_name
from pipeline.app.measured_shares import PAIRS
from pipeline.app.packed_samples import PackedSamples
from pipeline.app.uploads import Sample, missing_stains
from pipeline.reporting.page import STAINS
from pipeline.reporting.pictures import thumbnail

FOLDER = Path(__file__).parent / "template"

TOP = 8
"""Labels of the table that are shown at once."""

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def render_result(found: Analysis, sample: Sample, samples: Sequence[str], ignored: Sequence[str]) -> str:
    """The result of a sample.

    Args:
        found: the result.
        sample: what it is of.
        samples: ids of all samples of the upload.
        ignored: names of files that were not read.
    """
    return _ENVIRONMENT.get_template("result.html").render(
        found=found,
        samples=samples,
        ignored=ignored,
        stains=STAINS,
        top=TOP,
        measured=found.calibrated and found.rows[0].right is not None,
        pairs=PAIRS,
        missing=[stain_name(channel) for channel in missing_stains(sample)],
    )


def render_problem(title: str, message: str) -> str:
    """A problem, in place of a result."""
    return _ENVIRONMENT.get_template("problem.html").render(title=title, message=message)


class UploadPage:
    """The whole page; its examples are drawn once."""

    def __init__(self, models: Sequence[str], packed: PackedSamples | None, limit: int) -> None:
        """Draw the examples.

        Args:
            models: their names.
            packed: has the examples.
            limit: of an upload in bytes.
        """
        images = [] if packed is None else [packed.image(id_) for id_ in packed.examples]
        self._values = {
            "models": models,
            "limit": limit,
            "stains": STAINS,
            "tested": packed is not None and packed.tested,
            "examples": [thumbnail(image) for image in images if image is not None],
        }

    def render(self, result: str = "") -> str:
        """The page with a result, which is HTML."""
        return _ENVIRONMENT.get_template("upload.html").render(**self._values, result=result) + "\n"
