"""The page: sections, style and script in one file that needs nothing else."""

import json
from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.labels import CHANNELS
from pipeline.report.blocks import Card, Cards, Section
from pipeline.report.pictures import channel_files, overlaid, thumbnail
from pipeline.report.run import Run
from pipeline.report.sections.data import data_section
from pipeline.report.sections.decisions import calibration_section, confusions_section, policies_section
from pipeline.report.sections.examples import attention_section, errors_section
from pipeline.report.sections.folds import folds_section
from pipeline.report.sections.labels import labels_section
from pipeline.report.sections.provenance import provenance_section
from pipeline.report.sections.score import score_section
from pipeline.report.sections.training import training_section

PAGE = Path(__file__).parent / "page"

STAINS = dict(zip(CHANNELS, ("the protein", "nucleus", "microtubules", "endoplasmic reticulum"), strict=True))

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
    attention_section,
    provenance_section,
)


def render(run: Run) -> str:
    """The page of a run as HTML; the same run gives the same text."""
    sections = [section(run) for section in SECTIONS]
    samples = {card.sample.key: card.sample for card in cards(sections)}
    images = {key: run.images[sample.source][sample.row] for key, sample in samples.items()}
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return (
        environment.get_template("page.html").render(
            sections=sections,
            channels=STAINS,
            thumbnails={key: thumbnail(image) for key, image in images.items()},
            overlay=lambda card, overlay: overlaid(images[card.sample.key], overlay.map),
            files=json.dumps(channel_files(images)),
            size=max(image.shape[0] for image in images.values()),
        )
        + "\n"
    )


def cards(sections: Iterable[Section]) -> Iterable[Card]:
    """Every card of the page."""
    return (
        card for section in sections for block in section.blocks if isinstance(block, Cards) for card in block.cards
    )
