"""From a feature map to 28 logits, with a place for every label."""

import math

import torch
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.labels import LABELS

HEADS = 4
TEMPERATURE = 10_000


class LabelQueries(nn.Module):
    """Each label looks for itself: 28 learned queries attend over the positions of a feature map.

    ``K = V = LayerNorm(x) + position``, ``found = MultiHead(Q = labels, K, V)``,
    ``logit[l] = weight[l] · found[l] + bias[l]``. A label's map is its attention over the positions, averaged
    over the four heads: at least 0, and its sum over the positions is 1.

    Sources: Liu et al., "Query2Label", arXiv 2107.10834 (labels as queries), without its self-attention between
    labels and its feed-forward layers; Carion et al., "DETR", ECCV 2020 (sines of both axes as positions).
    """

    def __init__(self, channels: int, dropout: float) -> None:
        """Fresh weights.

        Args:
            channels: of the feature map; a multiple of 4.
            dropout: share of what a query found that is dropped in training.

        Raises:
            InputError: the channels cannot be split among heads.
        """
        super().__init__()
        if channels % HEADS:
            raise InputError(
                f"params.yaml: head label_queries needs a last stage of a multiple of {HEADS} channels, not {channels}"
            )
        self.norm = nn.LayerNorm(channels)
        self.queries = nn.Parameter(torch.randn(len(LABELS), channels) * channels**-0.5)
        self.attend = nn.MultiheadAttention(channels, HEADS, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.weight = nn.Parameter(torch.randn(len(LABELS), channels) * channels**-0.5)
        self.bias = nn.Parameter(torch.zeros(len(LABELS)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to logits (B, 28)."""
        found, _ = self._look(x, need_weights=False)  # B, 28, C
        logits: Tensor = (self.dropout(found) * self.weight).sum(dim=-1) + self.bias
        return logits

    def maps(self, x: Tensor) -> Tensor:
        """Where each label looks: (B, C, H, W) to (B, 28, H, W), each map adding up to 1."""
        _, weights = self._look(x, need_weights=True)  # B, 28, HW
        assert weights is not None  # for the type checker: they were asked for
        return weights.reshape(*weights.shape[:2], *x.shape[-2:])

    def _look(self, x: Tensor, *, need_weights: bool) -> tuple[Tensor, Tensor | None]:
        batch, channels, height, width = x.shape
        places = self.norm(x.flatten(2).transpose(1, 2))  # B, HW, C
        places = places + positions(height, width, channels).to(places)
        queries = self.queries.expand(batch, -1, -1)  # B, 28, C
        looked: tuple[Tensor, Tensor | None] = self.attend(queries, places, places, need_weights=need_weights)
        return looked


def positions(height: int, width: int, channels: int) -> Tensor:
    """Sines and cosines of both axes, (H * W, C), row by row: half the channels tell the row, half the column.

    Axes run from 0 to 2 pi whatever the size of the map, so that weights serve images of other sizes.
    """
    quarter = channels // 4
    rates = torch.exp(-math.log(TEMPERATURE) * torch.arange(quarter) / quarter)  # C/4
    rows, columns = ((torch.arange(n) + 0.5) / n * 2 * math.pi for n in (height, width))
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)  # H, W, 2
    angles = grid[..., None] * rates  # H, W, 2, C/4
    return torch.stack((angles.sin(), angles.cos()), dim=-1).reshape(height * width, channels)
