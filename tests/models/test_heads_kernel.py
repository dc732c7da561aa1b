"""The kernel head against scikit-learn, its logits, its file, and where its features come from."""

import contextlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.stats import norm, rankdata
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics import pairwise_distances
from torch import Tensor
from torch.nn import functional as F

from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.models import checkpoint
from pipeline.models.heads import KNOTS, RIDGE, KernelHead, pool_stages
from pipeline.models.network import Network
from pipeline.models.pretrained import start_from_weights
from pipeline.models.provenance import Provenance
from tests.fixtures.models import FROZEN, TINY


def drawn(count: int, seed: int) -> Tensor:
    """Skewed features of very different scales."""
    random = np.random.default_rng(seed)
    return torch.from_numpy(np.exp(random.normal(size=(count, 6))) * 10.0 ** np.arange(-3, 3)).float()


def labelled(features: Tensor) -> Tensor:
    targets = torch.zeros(len(features), 28)
    targets[:, 3] = (features[:, 0] > 1e-3).float()
    targets[:, 21] = (features[:, 5] * features[:, 2] > 10).float()
    return targets


def fitted(features: Tensor) -> KernelHead:
    head = KernelHead(6)
    head.fit(features, labelled(features))
    return head


def normal_scores(train: Tensor, features: Tensor) -> npt.NDArray[np.float64]:
    quantiles = np.linspace(0, 1, KNOTS)
    ranks = quantiles.clip(0.5 / len(train), 1 - 0.5 / len(train))
    columns = zip(features.double().numpy().T, train.double().numpy().T, strict=True)
    scores: npt.NDArray[np.float64] = norm.ppf(
        np.stack([np.interp(new, np.quantile(seen, quantiles), ranks) for new, seen in columns], axis=1)
    )
    return scores


def fitted_network() -> Network:
    torch.manual_seed(0)
    network = Network(FROZEN).eval()
    assert network.kernel is not None
    with torch.no_grad():
        features = network.head_features(noise(12))
    network.kernel.fit(features, (torch.arange(28) % 12 == torch.arange(12)[:, None]).float())
    return network


def noise(count: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 4, 64, 64), dtype=np.uint8))


def test_it_is_scikit_learn_s_kernel_ridge_on_normal_scores() -> None:
    train, new = drawn(120, 0), drawn(40, 1)
    seen, unseen, targets = normal_scores(train, train), normal_scores(train, new), labelled(train).numpy()
    median = np.median(pairwise_distances(seen)[np.triu_indices(120, 1)] ** 2)
    oracle = KernelRidge(kernel="rbf", gamma=1 / median, alpha=RIDGE).fit(seen, targets - targets.mean(axis=0))
    expected = targets.mean(axis=0) + oracle.predict(unseen)
    head = fitted(train)
    np.testing.assert_allclose(head.points.numpy(), seen, atol=1e-5)
    np.testing.assert_allclose(head.weight.numpy(), oracle.dual_coef_, atol=1e-4)
    found = head(new).sigmoid().numpy()
    clear = (expected > 0.15) & (expected < 0.85)
    assert clear[:, [3, 21]].sum() > 20
    np.testing.assert_allclose(found[clear], expected[clear], atol=1e-3)
    assert np.abs(found - expected.clip(0, 1)).max() < 0.004  # the soft clip


def test_it_tells_what_it_was_shown() -> None:
    train, new = drawn(200, 0), drawn(100, 1)
    found, truth = fitted(train)(new).sigmoid() > 0.5, labelled(new) > 0
    assert (found == truth)[:, [3, 21]].float().mean() > 0.9
    assert not found[:, 0].any()  # a label that no sample had


def test_the_scale_of_a_feature_is_of_no_account() -> None:
    train, new = drawn(50, 0), drawn(20, 1)
    other = KernelHead(6)
    other.fit(train**3, labelled(train))
    torch.testing.assert_close(other.points, fitted(train).points, atol=0.2, rtol=0)  # between knots the way differs
    other.fit(train * 1000, labelled(train))
    torch.testing.assert_close(other(new * 1000), fitted(train)(new), atol=1e-3, rtol=0)


def test_features_that_are_the_same_everywhere_or_out_of_range_give_finite_logits_and_gradients() -> None:
    train = drawn(30, 0)
    train[:, 1] = 0
    head = fitted(train)
    new = torch.tensor([[-1e9] * 6, [0.0] * 6, [1e9] * 6], requires_grad=True)
    logits = head(new)
    logits.sum().backward()
    assert logits.isfinite().all()
    assert new.grad is not None
    assert new.grad.isfinite().all()


def test_stages_are_pooled_as_torch_does_and_a_flat_map_has_a_gradient() -> None:
    x, flat = torch.randn(2, 3, 5, 7, requires_grad=True), torch.zeros(2, 4, 3, 3, requires_grad=True)
    pooled = pool_stages([x, flat])
    assert pooled.shape == (2, 3 * (3 + 4))
    torch.testing.assert_close(pooled[:, :3], F.adaptive_avg_pool2d(x, 1).flatten(1))
    torch.testing.assert_close(pooled[:, 3:6], x.flatten(2).std(dim=2, correction=0))
    torch.testing.assert_close(pooled[:, 6:9], F.adaptive_max_pool2d(x, 1).flatten(1))
    pooled.sum().backward()  # type: ignore[no-untyped-call]
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


def test_features_are_those_of_the_last_three_stages() -> None:
    network = fitted_network()
    seen: list[Tensor] = []
    for stage in ("layer2", "layer3", "layer4"):
        network.backbone.get_submodule(stage).register_forward_hook(lambda _module, _inputs, out: seen.append(out))
    with torch.no_grad():
        found = network.head_features(noise(2))
    torch.testing.assert_close(found, pool_stages(seen))


def test_half_precision_around_it_leaves_the_head_alone() -> None:
    head, new = fitted(drawn(50, 0)), drawn(20, 1)
    expected = head(new)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head(new), expected)


def test_the_fit_stays_on_the_device_of_the_head() -> None:
    head = KernelHead(6).to("meta")
    head.fit(drawn(20, 0), labelled(drawn(20, 0)))
    assert {buffer.device.type for buffer in head.buffers()} == {"meta"}
    assert {buffer.dtype for buffer in head.buffers()} == {torch.float32}


def test_equal_features_have_the_score_of_the_middle_of_their_ranks() -> None:
    train = drawn(200, 0)
    train[:100, 1] = 0  # half of the maps are empty, as after a ReLU
    train[:, 2] = 5
    points = fitted(train).points
    for feature in (0, 1):
        ranks = rankdata(train[:, feature].numpy(), method="average")
        expected = norm.ppf((ranks - 0.5) / 200)
        inside = np.abs(expected) < 1.7  # beyond, few samples lie between two knots that are far apart
        assert inside.sum() > 180
        np.testing.assert_allclose(points[inside, feature], expected[inside], atol=0.12)
    assert points[:, 2].abs().max() < 1e-6


def test_the_logit_is_that_of_the_solution_and_never_infinite() -> None:
    p = torch.tensor([-50.0, -0.5, 0.0, 0.05, 0.3, 0.95, 1.0, 1.5, 50.0])
    head = KernelHead(1)
    head.share = p.repeat(4)[:28]  # with no sample the solution is the share alone
    share = head.share.clone().requires_grad_()
    head.share = share
    logits = head(torch.zeros(1, 1))[0, : len(p)]
    logits.sum().backward()
    np.testing.assert_allclose(logits[[3, 4, 5]].sigmoid().detach(), [0.05, 0.3, 0.95], atol=1e-4)
    np.testing.assert_allclose(logits[[2, 6]].sigmoid().detach(), [0.0035, 0.9965], atol=1e-4)
    assert logits.isfinite().all()
    assert (logits.diff() > 0).all()
    assert share.grad is not None
    assert (share.grad[: len(p)] > 1).all()


def test_a_file_brings_the_fit_back(tmp_path: Path) -> None:
    network = fitted_network()
    checkpoint.save(tmp_path / "fold-0.safetensors", network, FROZEN, Provenance())
    again, recipe = checkpoint.load(tmp_path / "fold-0.safetensors")
    assert recipe == FROZEN
    with torch.no_grad():
        logits = again(noise(5, 1))
        assert torch.equal(logits, network(noise(5, 1)))
    assert logits.std() > 0.1


@pytest.mark.parametrize("model", [TINY, FROZEN], ids=lambda model: model.kind)
def test_another_network_starts_from_its_file_without_the_fit(tmp_path: Path, model: params.BackboneModel) -> None:
    path = tmp_path / "fold-0.safetensors"
    checkpoint.save(path, fitted_network(), FROZEN, Provenance())
    torch.manual_seed(1)
    other = Network(model)
    start_from_weights(other, model.model_copy(update={"pretrained": str(path)}))
    stored, _ = checkpoint.read(path)
    assert torch.equal(other.backbone.state_dict()["conv1.0.weight"], stored["backbone.conv1.0.weight"])
    assert other.kernel is None or len(other.kernel.points) == 0


@pytest.mark.parametrize(
    "damage",
    [
        {"points": torch.zeros(0, 48)},
        {"points": torch.zeros(12, 47)},
        {"points": torch.zeros(())},
        {"weight": torch.zeros(12, 1)},
        {"weight": torch.zeros(11, 28)},
        {"knots": torch.zeros(10, 48)},
    ],
)
def test_a_fit_of_other_shapes_is_refused(tmp_path: Path, damage: dict[str, Tensor]) -> None:
    path, network = tmp_path / "fold-0.safetensors", fitted_network()
    assert network.kernel is not None
    for name, value in damage.items():
        setattr(network.kernel, name, value)
    checkpoint.save(path, network, FROZEN, Provenance())
    with pytest.raises(InputError, match="do not fit this version's models"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("trained", "frozen", "message"),
    [
        (
            {"attention": "none"},
            {"attention": "cbam", "gate_init": "paper"},
            "lacks weights of attention cbam .*channel",
        ),
        ({"attention": "none"}, {"attention": "self"}, "lacks weights of attention self"),
        ({"normalise": "dataset"}, {}, "was trained with normalise: dataset, but params.yaml has image"),
        (
            {"attention": "cbam"},
            {"attention": "none"},
            "was trained with attention: cbam, but params.yaml has none",
        ),
        ({"attention": "none"}, {"gate_init": "identity"}, ""),
        ({"attention": "none"}, {"attention": "nonlocal"}, ""),
        ({}, {}, ""),
    ],
)
def test_weights_of_a_network_that_is_not_the_same_as_it_is_are_refused(
    tmp_path: Path, trained: dict[str, str], frozen: dict[str, str], message: str
) -> None:
    path, first = tmp_path / "fold-0.safetensors", TINY.model_copy(update=trained)
    checkpoint.save(path, Network(first), first, Provenance())
    model = FROZEN.model_copy(update={"pretrained": str(path), **frozen})
    with pytest.raises(InputError, match=message) if message else contextlib.nullcontext():
        start_from_weights(Network(model), model)
