"""Label queries: the attention written out, maps that add up, logits by position. The pyramid by its definition."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from pipeline.core.errors import InputError
from pipeline.models.heads import HEADS, LabelQueries, Pyramid


def test_logits_and_maps_equal_the_attention_written_out() -> None:
    torch.manual_seed(0)
    head = LabelQueries(16, levels=1, dropout=0.0).eval()
    with torch.no_grad():
        head.level.normal_()
    x = torch.randn(3, 16, 4, 5)
    places = head.norm(x.flatten(2).transpose(1, 2)) + head.level
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
    torch.testing.assert_close(head([x]), expected)
    torch.testing.assert_close(head.maps([x]).flatten(2), maps)


def test_maps_of_several_levels_add_up_to_one_at_the_finest() -> None:
    head = LabelQueries(8, levels=2, dropout=0.5).eval()
    fine, coarse = torch.randn(2, 8, 6, 14), torch.randn(2, 8, 3, 7)
    maps = head.maps([fine, coarse])
    assert maps.shape == (2, 28, 6, 14)
    torch.testing.assert_close(maps.sum(dim=(2, 3)), torch.ones(2, 28))
    assert (maps >= 0).all()
    _, weights = head._attend([fine, coarse], need_weights=True)
    assert weights is not None
    own, shared = torch.split(weights, [6 * 14, 3 * 7], dim=-1)
    spread = shared.reshape(2, 28, 3, 7).repeat_interleave(2, -1).repeat_interleave(2, -2) / 4
    torch.testing.assert_close(maps, own.reshape(2, 28, 6, 14) + spread)


@pytest.fixture
def soft_and_hard() -> tuple[LabelQueries, LabelQueries]:
    """The same weights, sharp enough that the attention is uneven."""
    torch.manual_seed(0)
    soft, hard = (LabelQueries(8, levels=2, dropout=0.0, hard=hard) for hard in (False, True))
    with torch.no_grad():
        soft.queries.mul_(4)
        soft.attend.in_proj_bias.normal_()
    hard.load_state_dict(soft.state_dict())
    return soft, hard


def test_hard_attention_predicts_with_its_expectation(soft_and_hard: tuple[LabelQueries, LabelQueries]) -> None:
    soft, hard = soft_and_hard
    levels = [torch.randn(2, 8, 4, 4), torch.randn(2, 8, 2, 2)]
    assert torch.equal(hard.eval()(levels), soft.eval()(levels))
    torch.manual_seed(1)
    many = hard.train()([level[:1].expand(20_000, -1, -1, -1) for level in levels])
    assert many.std(dim=0).min() > 0.01  # it draws
    sd = many.std(dim=0) / len(many) ** 0.5
    assert ((many.mean(dim=0) - soft(levels)[0]).abs() < 5 * sd).all()


def test_a_hard_query_sees_one_position_in_each_head(soft_and_hard: tuple[LabelQueries, LabelQueries]) -> None:
    hard, x = soft_and_hard[1].train(), torch.randn(1, 8, 1, 2)  # two positions
    value = hard.attend.in_proj_weight.chunk(3)[2], hard.attend.in_proj_bias.chunk(3)[2]
    v = F.linear(hard._places(x, 0)[0], *value).view(2, HEADS, -1)  # positions, heads, channels
    possible = []
    for choice in itertools.product((0, 1), repeat=HEADS):
        found = torch.cat([v[position, number] for number, position in enumerate(choice)])
        found = F.linear(found, hard.attend.out_proj.weight, hard.attend.out_proj.bias)
        possible.append((found * hard.weight).sum(-1) + hard.bias)
    torch.manual_seed(2)
    drawn = hard([x.expand(200, -1, -1, -1)])  # 200, 28
    distance = (drawn[:, None] - torch.stack(possible)).abs()  # 200, 16, 28
    assert distance.amin(dim=1).max() < 1e-5
    assert len(distance.argmin(dim=1).unique()) > 4


def test_the_gradient_of_hard_attention_is_that_of_soft(soft_and_hard: tuple[LabelQueries, LabelQueries]) -> None:
    levels = [torch.randn(3, 8, 4, 4), torch.randn(3, 8, 2, 2)]
    for head in soft_and_hard:
        head.train()(levels).sum().backward()
    soft, hard = (head.queries.grad for head in soft_and_hard)
    assert soft is not None
    assert hard is not None
    torch.testing.assert_close(hard, soft)


def test_logits_are_float32_under_autocast() -> None:
    torch.manual_seed(0)
    head, x = LabelQueries(16, levels=1, dropout=0.0).eval(), torch.randn(3, 16, 4, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head([x])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, head([x]))


def test_pyramid_adds_all_coarser_stages_to_each() -> None:
    torch.manual_seed(0)
    pyramid, widths = Pyramid((3, 5, 7), 4), (3, 5, 7)
    stages = [torch.randn(2, width, 12 >> number, 8 >> number) for number, width in enumerate(widths)]
    own = [lateral(stage) for lateral, stage in zip(pyramid.lateral, stages, strict=True)]
    middle = own[1] + doubled(own[2])
    expected = [own[0] + doubled(middle), middle, own[2]]
    for found, smooth, total in zip(pyramid(stages), pyramid.smooth, expected, strict=True):
        torch.testing.assert_close(found, smooth(total))


def doubled(level: torch.Tensor) -> torch.Tensor:
    return level.repeat_interleave(2, -1).repeat_interleave(2, -2)


def test_pyramid_enlarges_to_levels_of_odd_sizes() -> None:
    pyramid = Pyramid((3, 5), 4)
    assert [level.shape for level in pyramid([torch.randn(1, 3, 9, 7), torch.randn(1, 5, 5, 4)])] == [
        (1, 4, 9, 7),
        (1, 4, 5, 4),
    ]


def head_with_random_weights(levels: int) -> LabelQueries:
    """A head whose every weight matters, also those that start as zero."""
    torch.manual_seed(0)
    head = LabelQueries(16, levels=levels, dropout=0.5).eval()
    with torch.no_grad():
        for weight in head.parameters():
            weight.normal_(std=0.3)
    return head


def test_logits_by_position_are_those_of_a_map_that_is_this_position_alone() -> None:
    head, x = head_with_random_weights(levels=3), torch.randn(2, 16, 3, 4)
    found = head.position_logits([x, torch.randn(2, 16, 2, 2), torch.randn(2, 16, 1, 1)])
    assert found.shape == (2, 28, 3, 4)
    for row in range(3):
        for column in range(4):
            alone = head([x[:, :, row : row + 1, column : column + 1]])
            torch.testing.assert_close(found[:, :, row, column], alone)


def test_logits_are_means_of_those_by_position_over_all_levels_by_attention() -> None:
    head = head_with_random_weights(levels=2)
    with torch.no_grad():  # queries of zero attend to all positions alike
        head.attend.in_proj_weight[:16] = 0
        head.attend.in_proj_bias[:16] = 0
    fine, coarse = torch.randn(2, 16, 4, 6), torch.randn(2, 16, 2, 3)
    at_fine = head.position_logits([fine]).flatten(2)
    with torch.no_grad():
        head.level[[0, 1]] = head.level[[1, 0]]
        at_coarse = head.position_logits([coarse]).flatten(2)
        head.level[[0, 1]] = head.level[[1, 0]]
    torch.testing.assert_close(head([fine, coarse]), torch.cat([at_fine, at_coarse], dim=-1).mean(dim=-1))


def test_logits_by_position_are_float32_under_autocast() -> None:
    head, x = head_with_random_weights(levels=1), torch.randn(3, 16, 4, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head.position_logits([x.bfloat16()])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, head.position_logits([x.bfloat16()]))


def test_channels_that_do_not_split_are_refused() -> None:
    with pytest.raises(InputError, match="multiple of 4 channels, not 10"):
        LabelQueries(10, levels=1, dropout=0.0)
