"""The focal loss against torchvision's, and its limits."""

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from pipeline.model.losses import focal


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_equals_torchvision(gamma: float, alpha: float | None) -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(8, 28) * 3, (torch.rand(8, 28) < 0.2).float()
    theirs = sigmoid_focal_loss(logits, targets, alpha=-1 if alpha is None else alpha, gamma=gamma, reduction="mean")
    torch.testing.assert_close(focal(logits, targets, gamma=gamma, alpha=alpha), theirs)


def test_gamma_zero_is_binary_cross_entropy() -> None:
    logits, targets = torch.randn(4, 28), torch.randint(0, 2, (4, 28)).float()
    expected = F.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(focal(logits, targets, gamma=0.0), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_keep_loss_and_gradient_finite(dtype: torch.dtype) -> None:
    logits = torch.tensor([[-300.0, 300.0, -300.0, 300.0]], dtype=dtype, requires_grad=True)
    loss = focal(logits, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), gamma=2.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(150, rel=0.01)  # two of four are missed by 300
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
