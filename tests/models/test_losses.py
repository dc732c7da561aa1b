"""The losses against torchvision's, timm's, scikit-learn's and their definitions; their limits."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score
from timm.loss.asymmetric_loss import AsymmetricLossMultiLabel
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from pipeline.core import params
from pipeline.core.model_params import Asymmetric, Focal
from pipeline.models import losses
from pipeline.models.losses import asymmetric, focal, lovasz, objective, smooth, soft_f1
from tests.fixtures.models import TINY

ALL: tuple[params.LossName, ...] = ("focal", "bce", "asymmetric", "soft_f1", "lovasz")


def batch(seed: int = 0, samples: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, 28, generator=generator) * 3
    return logits, (torch.rand(samples, 28, generator=generator) < 0.2).float()


def single(name: params.LossName) -> Callable[[Tensor, Tensor], Tensor]:
    return objective(TINY.model_copy(update={"loss": {name: 1.0}}), torch.full((28,), 0.2))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_focal_equals_torchvision(gamma: float, alpha: float | None, smoothing: float) -> None:
    logits, targets = batch()
    targets = smooth(targets, smoothing)
    theirs = sigmoid_focal_loss(logits, targets, alpha=-1 if alpha is None else alpha, gamma=gamma, reduction="mean")
    torch.testing.assert_close(focal(logits, targets, gamma=gamma, alpha=alpha), theirs)


def test_focal_with_gamma_zero_is_binary_cross_entropy() -> None:
    logits, targets = batch()
    expected = F.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(focal(logits, targets, gamma=0.0), expected)
    torch.testing.assert_close(losses.binary_cross_entropy(logits, targets), expected)


@pytest.mark.parametrize(("positive", "negative", "margin"), [(0, 4, 0.05), (1, 2, 0), (0, 0, 0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_asymmetric_equals_timm(positive: float, negative: float, margin: float, smoothing: float) -> None:
    logits, targets = batch()
    theirs = AsymmetricLossMultiLabel(gamma_neg=negative, gamma_pos=positive, clip=margin, reduction="mean")
    targets = smooth(targets, smoothing)
    # timm focuses a soft target by a mixture of both exponents, the published loss by each term's own;
    # they are the same for hard targets and where the exponents are 0.
    if smoothing and (positive or negative):
        expected = targets * term(logits, 1.0, positive, negative, margin)
        expected = (expected + (1 - targets) * term(logits, 0.0, positive, negative, margin)).mean()
    else:
        expected = theirs(logits, targets)
    ours = asymmetric(logits, targets, gamma_positive=positive, gamma_negative=negative, margin=margin)
    torch.testing.assert_close(ours, expected)


def term(logits: Tensor, target: float, positive: float, negative: float, margin: float) -> Tensor:
    loss = AsymmetricLossMultiLabel(gamma_neg=negative, gamma_pos=positive, clip=margin, reduction="none")
    costs: Tensor = loss(logits, torch.full_like(logits, target))
    return costs


def test_soft_f1_of_decided_logits_is_one_minus_f1() -> None:
    random = np.random.default_rng(0)
    truth, decided = random.random((400, 28)) < 0.3, random.random((400, 28)) < 0.3
    logits = torch.from_numpy(np.where(decided, 50.0, -50.0))
    expected = 1 - f1_score(truth, decided, average="macro")
    # The added ones weigh little beside 240 counts.
    assert soft_f1(logits, torch.from_numpy(truth)).item() == pytest.approx(expected, abs=0.005)


def test_soft_f1_counts_as_written() -> None:
    logits, targets = batch()
    probabilities = logits.sigmoid()
    by_label = []
    for label in range(28):
        p, t = probabilities[:, label], targets[:, label]
        hit, false, missed = (p * t).sum(), (p * (1 - t)).sum(), ((1 - p) * t).sum()
        by_label.append(1 - (2 * hit + 1) / (2 * hit + false + missed + 1))
    torch.testing.assert_close(soft_f1(logits, targets), torch.stack(by_label).mean())


def jaccard_loss(truth: set[int], predicted: set[int]) -> float:
    union = truth | predicted
    return 1 - len(truth & predicted) / len(union) if union else 0.0


@given(
    st.lists(st.tuples(st.floats(-5, 5, width=32), st.booleans()), min_size=1, max_size=7),
)
def test_lovasz_is_the_extension_of_the_jaccard_loss(samples: list[tuple[float, bool]]) -> None:
    logits = torch.tensor([[logit] for logit, _ in samples])
    truth = {i for i, (_, positive) in enumerate(samples) if positive}
    errors = [max(0.0, 1 - logit * (1 if positive else -1)) for logit, positive in samples]
    expected, wrong = 0.0, set[int]()
    for i in sorted(range(len(samples)), key=lambda i: -errors[i]):
        # The loss of a set of mistakes: found are the positives without a mistake, claimed the false ones besides.
        before = jaccard_loss(truth, (truth - wrong) | (wrong - truth))
        wrong.add(i)
        expected += errors[i] * (jaccard_loss(truth, (truth - wrong) | (wrong - truth)) - before)
    got = lovasz(logits, torch.tensor([[float(positive)] for _, positive in samples]))
    assert got.item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [17.0, 90.0, 104.0, 120.0, 300.0])  # sigmoid is denormal at -90, and 0 from -104
@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.5, 1.0, 1.5, 4.0])
def test_extreme_logits_keep_loss_and_gradient_finite(
    name: params.LossName, dtype: torch.dtype, size: float, gamma: float
) -> None:
    targets = torch.tensor([[0.0, 0.0, 1.0, 1.0] * 7])
    for margin, smoothing in ((0.05, 0.0), (0.0, 0.1)):
        model = TINY.model_copy(
            update={
                "loss": {name: 1.0},
                "focal": Focal(gamma=gamma, alpha=None),
                "asymmetric": Asymmetric(gamma_positive=gamma, gamma_negative=gamma, margin=margin),
                "label_smoothing": smoothing,
            }
        )
        logits = torch.tensor([[-size, size, -size, size] * 7], dtype=dtype, requires_grad=True)
        loss = objective(model, torch.full((28,), 0.2))(logits, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss)
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()


def test_two_labels_in_four_missed_by_300_cost_150() -> None:
    logits, targets = torch.tensor([[-300.0, 300.0, -300.0, 300.0]]), torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    assert focal(logits, targets, gamma=2.0).item() == pytest.approx(150, rel=1e-3)
    assert asymmetric(logits, targets, gamma_positive=0, gamma_negative=4, margin=0).item() == pytest.approx(150)


@pytest.mark.parametrize("name", ALL)
def test_bf16_logits_cost_what_their_float32_values_do(name: params.LossName) -> None:
    logits, targets = batch()
    rounded = logits.bfloat16()
    torch.testing.assert_close(single(name)(rounded, targets), single(name)(rounded.float(), targets))


@pytest.mark.parametrize("name", ALL)
def test_a_step_down_the_gradient_lowers_the_loss(name: params.LossName) -> None:
    logits, targets = batch()
    logits.requires_grad_()
    loss = single(name)(logits, targets)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert single(name)(logits - 0.1 * gradient / gradient.norm(), targets) < loss


@pytest.mark.parametrize("name", ALL)
def test_label_weights_weigh_the_losses_of_the_labels(name: params.LossName) -> None:
    logits, targets = batch()
    prior = torch.linspace(0.01, 0.4, 28)
    weighted = objective(TINY.model_copy(update={"loss": {name: 1.0}, "label_balance": 0.5}), prior)
    expected = prior**-0.5 / (prior**-0.5).mean()
    alone = [single(name)(logits[:, [label]], targets[:, [label]]) for label in range(28)]
    torch.testing.assert_close(weighted(logits, targets), (torch.stack(alone) * expected).mean())


def test_a_label_that_never_occurs_gets_a_finite_weight() -> None:
    weights = losses.label_weights(torch.tensor([0.0, 0.5]), balance=1.0)
    assert torch.isfinite(weights).all()
    assert weights.mean().item() == pytest.approx(1)


def test_a_sum_of_losses_is_weighted() -> None:
    logits, targets = batch()
    both = objective(TINY.model_copy(update={"loss": {"focal": 1.0, "lovasz": 0.5}}), torch.full((28,), 0.2))
    expected = single("focal")(logits, targets) + 0.5 * single("lovasz")(logits, targets)
    torch.testing.assert_close(both(logits, targets), expected)


def test_smoothing_softens_what_is_counted_by_label_and_leaves_sets_alone() -> None:
    logits, targets = batch()
    smoothed = TINY.model_copy(update={"loss": {"bce": 1.0}, "label_smoothing": 0.1})
    expected = F.binary_cross_entropy_with_logits(logits, targets * 0.9 + 0.05)
    torch.testing.assert_close(objective(smoothed, torch.full((28,), 0.2))(logits, targets), expected)
    sets = smoothed.model_copy(update={"loss": {"lovasz": 1.0}})
    torch.testing.assert_close(objective(sets, torch.full((28,), 0.2))(logits, targets), lovasz(logits, targets))
