"""The section on similar samples: a map of the training samples, as one model sees them."""

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import NearestNeighbors

from pipeline.core.labels import LABELS
from pipeline.evaluation.reference_file import Reference
from pipeline.reporting.blocks import MapPoint, PageSection, SampleMap, count_noun
from pipeline.reporting.finished_run import FinishedRun

MARGIN = 0.02
"""Share of the map's side that is left free at each edge."""


def map_section(run: FinishedRun) -> PageSection:
    """Training samples on a plane, similar ones close to each other."""
    places = run.reference.places
    shown = np.flatnonzero(np.isfinite(places).all(axis=1))
    return PageSection("map", "Map of the samples", [SampleMap(points(run, shown), choices(run, shown), caption(run))])


def points(run: FinishedRun, shown: npt.NDArray[np.intp]) -> list[MapPoint]:
    """A point for each of the samples at these positions."""
    places = run.reference.places[shown].astype(np.float64)
    if not len(places):
        return []
    low, high = places.min(axis=0), places.max(axis=0)
    scaled = MARGIN + (1 - 2 * MARGIN) * (places - low) / np.maximum(high - low, 1e-9)
    return [
        MapPoint(run.sample(position), x, y, np.flatnonzero(run.truth[position]).tolist(), solid)
        for position, (x, y), solid in zip(
            shown.tolist(), scaled.tolist(), run.reference.held_out[shown].tolist(), strict=True
        )
    ]


def choices(run: FinishedRun, shown: npt.NDArray[np.intp]) -> list[tuple[int, str, int]]:
    """The labels of the samples at these positions, the most frequent first."""
    counts = run.truth[shown].sum(axis=0)
    return [
        (int(label), LABELS[label], int(counts[label])) for label in np.argsort(-counts, kind="stable") if counts[label]
    ]


def caption(run: FinishedRun) -> str:
    """How the map was made, and how often similar samples have a label in common."""
    reference = run.reference
    held_out, total = int(reference.held_out.sum()), len(reference.ids)
    mapped = int(np.isfinite(reference.places).all(axis=1).sum())
    shown = f"{mapped:,} of the {count_noun(total, 'training sample')}" if mapped < total else f"{total:,} samples"
    return (
        f"Choose a label, and point at a dot to see its sample. The map shows {shown}, placed by t-SNE so that those "
        "with similar embeddings are close; distances between far groups say little. Embeddings are those of "
        f"{reference.model}, trained without fold {reference.fold}. Dots are the {held_out:,} samples of this fold; "
        "rings are samples that the model was trained on, so their labels lie apart more clearly than those of new "
        f"samples. {agreement(run.truth, reference)}"
    )


def agreement(truth: npt.NDArray[np.bool_], reference: Reference) -> str:
    """How often a held-out sample shares a label with the most similar sample that the model was trained on."""
    known = ~reference.held_out
    mean, scale = reference.vectors[known].mean(axis=0), reference.vectors[known].std(axis=0)
    scaled = (reference.vectors - mean) / np.maximum(scale, 1e-6)
    search = NearestNeighbors(n_neighbors=1, metric="cosine").fit(scaled[known])
    nearest = search.kneighbors(scaled[~known], return_distance=False)[:, 0]
    own, others = truth[~known], truth[known]
    share = (own & others[nearest]).any(axis=1).mean()
    chance = ((own.astype(np.int64) @ others.T) > 0).mean()
    return (
        f"Of the dots, {share:.0%} share a label with the most similar ring, which is never of their own group; "
        f"{chance:.0%} would with a random one."
    )
