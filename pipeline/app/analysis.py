"""All that the page shows of a sample: channels, probabilities, maps, similar training images, what is unlike them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.app.likeness import Caution
from pipeline.app.served_run import ServedRun
from pipeline.app.uploads import Sample, missing_stains
from pipeline.core.labels import CHANNELS, LABELS, parse_target
from pipeline.evaluation.calibration import Singles
from pipeline.evaluation.metrics import Bools, Thresholds
from pipeline.inference.maps_of_image import maps_of_image
from pipeline.inference.neighbours import Neighbours
from pipeline.inference.trained_models import predict
from pipeline.reporting.pictures import composite, data_uri, encode_channels, overlay, thumbnail
from pipeline.sources.images import encode_webp, fit, shrink

SIMILAR = 5
"""Training samples that are shown."""

MAPPED = 5
"""Labels whose maps are shown: those given, and the most probable others up to this number."""

MOST_MAPPED = 8
"""Most labels whose maps are shown, however many are given: each takes time."""

SIDE = 512
"""Largest side in pixels of the pictures on the page."""

MAP_SIDE = 320
QUALITY = 80


class LabelRow(NamedTuple):
    """A label's row of the table."""

    label: str
    probability: float
    threshold: float
    given: bool
    right: float | None
    """Share of right labels among the run's held-out samples with about this probability; None if unknown."""


class SimilarSample(NamedTuple):
    """A training sample that the model finds similar."""

    id: str
    labels: str
    similarity: float
    picture: str | None


@dataclass(frozen=True)
class Analysis:
    """A sample as the page shows it; pictures are data URIs.

    Attributes:
        id: of the sample.
        channels: a picture of each stain that it has.
        composite: the colour composite.
        rows: a row per label, the most probable first.
        fallback: no label reached its threshold, so the most probable one was given.
        calibrated: whether the probabilities are calibrated.
        maps: label and picture.
        similar: training samples, the most similar first; None if the run does not describe them.
        novelty: share of held-out training samples that are less unusual; None if it is unknown.
        cautions: what is unlike the training samples.
        exposure_compared: whether the exposure was compared with theirs.
        probabilities: (28,), as `predict` writes them.
        decisions: (28,).
    """

    id: str
    channels: Mapping[str, str]
    composite: str
    rows: Sequence[LabelRow]
    fallback: bool
    calibrated: bool
    maps: Sequence[tuple[str, str]]
    similar: Sequence[SimilarSample] | None
    novelty: float | None
    cautions: Sequence[Caution]
    exposure_compared: bool
    probabilities: Singles
    decisions: Bools


def analyse(run: ServedRun, sample: Sample) -> Analysis:
    """Predict a sample as `predict` does, and compare it with the training samples.

    Raises:
        InputError: a model's predictions are not finite.
    """
    images = sample.pixels[None]
    _, probabilities, decisions = run.rule.apply(predict(run.models, images, run.views))
    novelty, similar = None, None
    if run.known is not None:
        compared, neighbours = run.known.compare(images, SIMILAR)
        similar = similar_samples(run, neighbours)
        # It compares all four stains with those of the training samples.
        novelty = None if missing_stains(sample) else float(compared[0])
    shown = shrink(sample.pixels, min(SIDE, len(sample.pixels)))
    return Analysis(
        id=sample.id,
        channels=channel_pictures(sample),
        composite=data_uri(encode_webp(composite(shown), QUALITY)),
        rows=label_rows(run, probabilities[0], run.rule.thresholds, decisions[0]),
        fallback=not bool((probabilities[0] >= run.rule.thresholds).any()),
        calibrated=run.calibrated,
        maps=map_pictures(run, sample, mapped_labels(probabilities[0], decisions[0])),
        similar=similar,
        novelty=novelty,
        cautions=run.likeness.cautions(sample, novelty),
        exposure_compared=run.likeness.knows_exposure,
        probabilities=probabilities[0],
        decisions=decisions[0],
    )


def channel_pictures(sample: Sample) -> dict[str, str]:
    """Each stain that the sample has, stretched to full contrast."""
    shown = shrink(sample.pixels, min(SIDE, len(sample.pixels)))
    encoded = dict(zip(CHANNELS, encode_channels(shown, QUALITY), strict=True))
    return {channel: data_uri(encoded[channel]) for channel in sample.stains}


def label_rows(run: ServedRun, probabilities: Singles, thresholds: Thresholds, decisions: Bools) -> list[LabelRow]:
    """The rows of the table, the most probable label first."""
    rows = []
    for label in np.argsort(-probabilities, kind="stable").tolist():
        probability = float(probabilities[label])
        right = None if run.measured is None else run.measured.share(probability)
        rows.append(LabelRow(LABELS[label], probability, float(thresholds[label]), bool(decisions[label]), right))
    return rows


def mapped_labels(probabilities: Singles, decisions: Bools) -> list[int]:
    """The labels whose maps are shown, those given first."""
    order = np.argsort(-probabilities, kind="stable")
    given = order[decisions[order]]
    others = order[~decisions[order]][: max(0, MAPPED - len(given))]
    return [int(label) for label in np.concatenate([given, others])[:MOST_MAPPED]]


def map_pictures(run: ServedRun, sample: Sample, labels: Sequence[int]) -> list[tuple[str, str]]:
    """The attention map of each label over the protein, as `predict --maps` draws it."""
    small = fit(sample.pixels, min(MAP_SIDE, len(sample.pixels)))
    return [
        (LABELS[label], data_uri(encode_webp(overlay(small, attention), QUALITY)))
        for label, attention in zip(labels, maps_of_image(run.models, sample.pixels, labels), strict=True)
    ]


def similar_samples(run: ServedRun, neighbours: Neighbours) -> list[SimilarSample]:
    """The neighbours of the only sample, with their labels and, where they are packed, their pictures."""
    assert run.reference is not None  # for the type checker: it is there together with run.known
    found = []
    for row, similarity in zip(neighbours.positions[0].tolist(), neighbours.similarities[0].tolist(), strict=True):
        id_ = str(run.reference.ids[row])
        image = None if run.packed is None else run.packed.image(id_)
        labels = ", ".join(LABELS[label] for label in parse_target(str(run.reference.targets[row])))
        found.append(SimilarSample(id_, labels, float(similarity), None if image is None else thumbnail(image)))
    return found
