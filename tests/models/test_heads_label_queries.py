"""The label-query head: the attention written out, maps that add up, positions that tell places apart."""

import pytest
import torch

from pipeline.core.errors import InputError
from pipeline.models.heads import HEADS, LabelQueries, positions


def test_logits_and_maps_equal_the_attention_written_out() -> None:
    torch.manual_seed(0)
    head = LabelQueries(16, dropout=0.0).eval()
    x = torch.randn(3, 16, 4, 5)
    places = head.norm(x.flatten(2).transpose(1, 2)) + positions(4, 5, 16)
    weights = head.attend.in_proj_weight.chunk(3)
    biases = head.attend.in_proj_bias.chunk(3)
    q, k, v = (t @ w.T + b for t, w, b in zip((head.queries, places, places), weights, biases, strict=True))
    expected, maps = torch.zeros(3, 28), torch.zeros(3, 28, 20)
    for sample in range(3):
        heads = []
        for part in torch.arange(16).chunk(HEADS):
            attention = torch.softmax(q[:, part] @ k[sample][:, part].T / (16 // HEADS) ** 0.5, dim=-1)  # 28, 20
            maps[sample] += attention / HEADS
            heads.append(attention @ v[sample][:, part])
        found = torch.cat(heads, dim=-1) @ head.attend.out_proj.weight.T + head.attend.out_proj.bias
        expected[sample] = (found * head.weight).sum(-1) + head.bias
    torch.testing.assert_close(head(x), expected)
    torch.testing.assert_close(head.maps(x).flatten(2), maps)


def test_maps_add_up_to_one() -> None:
    maps = LabelQueries(8, dropout=0.5).eval().maps(torch.randn(2, 8, 3, 7))
    assert maps.shape == (2, 28, 3, 7)
    torch.testing.assert_close(maps.sum(dim=(2, 3)), torch.ones(2, 28))
    assert (maps >= 0).all()


def test_every_position_is_its_own_and_columns_are_rows_turned() -> None:
    encoded = positions(6, 6, 16)
    assert torch.cdist(encoded, encoded).fill_diagonal_(1).min() > 1e-3
    by_place = encoded.reshape(6, 6, 2, 8)
    torch.testing.assert_close(by_place[:, :, 0], by_place.transpose(0, 1)[:, :, 1])


def test_channels_that_do_not_split_are_refused() -> None:
    with pytest.raises(InputError, match="multiple of 4 channels, not 10"):
        LabelQueries(10, dropout=0.0)
