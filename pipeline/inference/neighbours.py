"""Exact nearest neighbours among embeddings, by cosine similarity."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.inference.embedding import Vectors

CHUNK = 256
"""Queries that are compared at once, which limits the memory needed: 100 MB for a gallery of 100,000."""

BLOCK = 64
"""Samples of the gallery whose maximum is searched before their order; see ``_top``."""

LEAST = 1e-6
"""Lower limit of standard deviations and lengths."""

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Neighbours:
    """The nearest samples of a gallery, the most similar first.

    Attributes:
        positions: (Q, k), rows of the gallery; -1 where there are fewer than k samples of other groups.
        similarities: (Q, k), cosines in -1..1; minus infinity where there is none.
    """

    positions: Codes
    similarities: Vectors


class Gallery:
    """Samples among which neighbours are searched.

    Each component of the embeddings is standardised by the gallery's own mean and standard deviation, because features
    of different kinds have different scales. Then vectors are compared by the cosine of their angle.

    Attributes:
        units: (N, D) float32, standardised and of length 1.
    """

    def __init__(self, vectors: Vectors) -> None:
        """Standardise embeddings (N, D); N at least 1."""
        found = torch.from_numpy(vectors)
        self._mean, self._scale = found.mean(dim=0), found.std(dim=0, correction=0).clamp_min(LEAST)
        self.units = self.to_units(found)

    def __len__(self) -> int:
        return len(self.units)

    def nearest(
        self, queries: Vectors, count: int, *, groups: tuple[Codes, Codes] | None = None, own: bool = False
    ) -> Neighbours:
        """The nearest samples of each query.

        Args:
            queries: (Q, D).
            count: how many, at least 1; all samples if there are fewer.
            groups: numbers of the groups of the queries, (Q,), and of the gallery, (N,). Samples of the query's own
                group are no neighbours.
            own: the queries are the gallery's samples in the same order, and none is its own neighbour.
        """
        units, count = self.to_units(torch.from_numpy(queries)), min(count, len(self))
        positions, similarities = [], []
        for start in range(0, len(units), CHUNK):
            similar = units[start : start + CHUNK] @ self.units.T
            if groups is not None:
                of_queries, of_gallery = (torch.from_numpy(codes) for codes in groups)
                similar[of_queries[start : start + CHUNK, None] == of_gallery] = -torch.inf
            if own:
                rows = torch.arange(len(similar))
                similar[rows, rows + start] = -torch.inf
            values, where = _top(similar, count)
            similarities.append(values)
            positions.append(torch.where(values.isneginf(), -1, where))
        if not positions:
            return Neighbours(np.empty((0, count), np.int64), np.empty((0, count), np.float32))
        return Neighbours(torch.cat(positions).numpy(), torch.cat(similarities).numpy())

    def to_units(self, vectors: Tensor) -> Tensor:
        """Standardise (n, D) as the gallery is, and divide by the length."""
        return F.normalize((vectors - self._mean) / self._scale, dim=1, eps=LEAST)


def _top(similar: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest values of each row, (Q, N), in descending order, and their positions.

    ``torch.topk`` of the whole row would take as long as computing the similarities. The largest values lie in the
    blocks with the largest maxima, so only these are sorted.
    """
    blocks = similar.shape[1] // BLOCK
    if blocks <= count:
        return similar.topk(count, dim=1)
    whole = similar[:, : blocks * BLOCK].reshape(len(similar), blocks, BLOCK)
    chosen = whole.amax(dim=2).topk(count, dim=1).indices  # Q, count
    candidates = whole.gather(1, chosen[..., None].expand(-1, -1, BLOCK)).flatten(1)
    places = (chosen[..., None] * BLOCK + torch.arange(BLOCK)).flatten(1)
    rest = torch.arange(blocks * BLOCK, similar.shape[1]).expand(len(similar), -1)
    candidates = torch.cat([candidates, similar[:, blocks * BLOCK :]], dim=1)
    values, inside = candidates.topk(count, dim=1)
    return values, torch.cat([places, rest], dim=1).gather(1, inside)
