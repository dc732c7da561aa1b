"""How unlike the training samples an image is: distances, and their false alarm rate on held-out samples."""

from itertools import combinations

import numpy as np
import numpy.typing as npt
from sklearn.covariance import LedoitWolf

from pipeline.core.labels import CHANNELS
from pipeline.evaluation.reference_file import Reference
from pipeline.inference.channel_statistics import Doubles, channel_statistics, with_channels_swapped
from pipeline.inference.embedding import Vectors
from pipeline.inference.fold_model import FoldModel
from pipeline.inference.neighbours import Gallery, Neighbours
from pipeline.sources.images import Image

NEIGHBOURS = 5
"""Training samples whose mean similarity decides; a single one may be mislabelled or a near-duplicate."""

FALSE_ALARMS = 0.05
"""Share of samples like the training samples that are called unlike them."""


LEAST_UNIT = 1e-9
"""Of a distance that is 0 for nearly all held-out samples."""


class NoveltyDetector:
    """Tells how unlike the training samples of a reference new samples are.

    Three distances from the samples that the model was trained on: one minus the mean cosine similarity of the nearest
    embeddings; the Mahalanobis distance of the channel statistics; and, for swapped channels, this distance over the
    smallest one that the sample would have with two of its channels swapped. Each is divided by its own quantile among
    the held-out samples, and the largest one counts. The novelty of a sample is the share of held-out samples for which
    that is smaller. So for samples like the held-out ones, 5 % have a novelty of at least 0.95, whatever the distances
    are (conformal prediction).

    Sources: Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022; Ledoit and Wolf, "A
    well-conditioned estimator for large-dimensional covariance matrices", 2004; Laxhammar and Falkman, "Conformal
    prediction for distribution-independent anomaly detection", 2010.
    """

    def __init__(self, reference: Reference) -> None:
        """Measure the held-out samples of the reference; some samples have to be held out, and some not."""
        held_out = reference.held_out
        self._gallery = Gallery(reference.vectors[~held_out])
        self._shape = LedoitWolf().fit(reference.statistics[~held_out])
        distances = self.distances(reference.vectors[held_out], reference.statistics[held_out])
        self.units = np.maximum(np.quantile(distances, 1 - FALSE_ALARMS, axis=0), LEAST_UNIT)
        self._held_out = np.sort((distances / self.units).max(axis=1))

    def distances(self, vectors: Vectors, statistics: Doubles) -> Doubles:
        """The distances of the embeddings, of the statistics, and by order of the channels, (n, 3).

        Args:
            vectors: (n, D).
            statistics: (n, F).
        """
        nearest = self._gallery.nearest(vectors, NEIGHBOURS).similarities.mean(axis=1)
        own = np.sqrt(self._shape.mahalanobis(statistics))
        swapped = [with_channels_swapped(statistics, *pair) for pair in combinations(CHANNELS, 2)]
        others = np.min([np.sqrt(self._shape.mahalanobis(each)) for each in swapped], axis=0)
        return np.column_stack([1 - nearest, own, own / np.maximum(others, LEAST_UNIT)])

    def novelty(self, vectors: Vectors, statistics: Doubles) -> Doubles:
        """The novelty of samples, (n,), in 0..1: the share of held-out training samples that are less novel.

        Args:
            vectors: (n, D), embeddings by the reference's model and fold.
            statistics: (n, F), of ``channel_statistics``.
        """
        larger = (self.distances(vectors, statistics) / self.units).max(axis=1)
        shares: Doubles = np.searchsorted(self._held_out, larger) / (len(self._held_out) + 1)
        return shares


class TrainingSamples:
    """The training samples of a run, and the fold model that compares images with them."""

    def __init__(self, reference: Reference, model: FoldModel) -> None:
        """Take the reference of a run and its own fold model, loaded."""
        self._name = f"{reference.model}, fold {reference.fold}"
        self._model, self._detector, self._gallery = model, NoveltyDetector(reference), Gallery(reference.vectors)

    def novelty(self, images: Image) -> Doubles:
        """The novelty of images (B, S, S, 4) uint8: (B,), see `NoveltyDetector.novelty`.

        Raises:
            InputError: the model computes values that are not finite.
        """
        return self.compare(images, 1)[0]

    def compare(self, images: Image, count: int) -> tuple[Doubles, Neighbours]:
        """The novelty of images (B, S, S, 4) uint8, and the most similar training samples of each.

        Args:
            images: at least as large as the model's input.
            count: how many samples.

        Returns:
            (B,), and neighbours whose positions are rows of the reference (``ids``, ``targets``).

        Raises:
            InputError: the model computes values that are not finite.
        """
        vectors = self._model.embed(images, self._name)
        return self._detector.novelty(vectors, channel_statistics(images)), self._gallery.nearest(vectors, count)


def is_novel(novelty: Doubles) -> npt.NDArray[np.bool_]:
    """Which samples are unlike the training samples, with the rate ``FALSE_ALARMS`` among samples like them."""
    return np.asarray(novelty >= 1 - FALSE_ALARMS)
