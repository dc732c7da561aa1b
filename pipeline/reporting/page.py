"""The report: all sections rendered to one self-contained HTML file."""

import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline import __version__
from pipeline.core.labels import CHANNELS, LABELS
from pipeline.reporting.blocks import Card, Cards, Listing, PageSection, SampleMap, Table, TableCell, count_noun
from pipeline.reporting.finished_run import FinishedRun
from pipeline.reporting.pictures import channel_files, miniature, overlaid, thumbnail
from pipeline.reporting.sections.annotations import label_issues_section
from pipeline.reporting.sections.dataset import data_section, folds_section
from pipeline.reporting.sections.decisions import (
    attention_section,
    calibration_section,
    confusions_section,
    errors_section,
    policies_section,
)
from pipeline.reporting.sections.scores import labels_section, score_section, training_section
from pipeline.reporting.sections.similarity import map_section

TEMPLATE = Path(__file__).parent / "template"

STAINS = dict(zip(CHANNELS, ("protein of interest", "nucleus", "microtubules", "endoplasmic reticulum"), strict=True))
"""What each channel shows."""

LIBRARIES = (
    "torch",
    "timm",
    "albumentations",
    "opencv-python-headless",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "dvc",
)
"""Packages whose versions the report lists."""


def provenance_section(run: FinishedRun) -> PageSection:
    """Versions and parameters: everything that the results depend on, besides data and code."""
    # No commit and no times: DVC tracks the report, which must not change unless the results do.
    rows = [("hpa-atlas", __version__), *((library, version(library)) for library in LIBRARIES)]
    models, folds = len(run.params.models), len(run.params.folds.ids)
    return PageSection(
        "run",
        "Versions and parameters",
        [
            Table(
                ("library", "version"),
                [[TableCell(library), TableCell(found)] for library, found in rows],
                "With these versions and the parameters below, the same data give the same results. "
                "python -m pipeline summary prints the commit and the time of each stage.",
            ),
            Listing(
                "params.yaml",
                Path("params.yaml").read_text(encoding="utf-8"),
                f"The parameters of this run: {count_noun(models, 'model')}, {count_noun(folds, 'fold')}.",
            ),
        ],
    )


SECTIONS = (
    score_section,
    data_section,
    folds_section,
    training_section,
    labels_section,
    policies_section,
    calibration_section,
    confusions_section,
    errors_section,
    label_issues_section,
    attention_section,
    map_section,
    provenance_section,
)


def render(run: FinishedRun) -> str:
    """Render the report of a run as HTML; the same run gives the same text."""
    sections = [section(run) for section in SECTIONS]
    samples = {card.sample.key: card.sample for card in cards(sections)}
    images = {key: run.images[sample.source][sample.row] for key, sample in samples.items()}
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["label_name"] = LABELS.__getitem__
    return (
        environment.get_template("page.html").render(
            sections=sections,
            channels=STAINS,
            thumbnails={key: thumbnail(image) for key, image in images.items()},
            overlay=lambda card, overlay: overlaid(images[card.sample.key], overlay.map),
            files=json.dumps(channel_files(images)),
            miniatures=json.dumps(miniatures(run, sections)),
            size=max(image.shape[0] for image in images.values()),
        )
        + "\n"
    )


def miniatures(run: FinishedRun, sections: Iterable[PageSection]) -> list[str]:
    """A very small picture of each sample on the map, in the order of its points."""
    maps = [block for section in sections for block in section.blocks if isinstance(block, SampleMap)]
    return [miniature(run.images[one.sample.source][one.sample.row]) for block in maps for one in block.points]


def cards(sections: Iterable[PageSection]) -> Iterable[Card]:
    """All cards of the report."""
    return (
        card for section in sections for block in section.blocks if isinstance(block, Cards) for card in block.cards
    )
