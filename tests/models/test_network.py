"""The network: uint8 images in, 28 logits out; normalisation and initialisation."""

import math

import pytest
import timm
import torch
from torch import nn

from pipeline.core import hardware, params
from pipeline.models.attention import CBAM
from pipeline.models.network import Network, Normalise, share_batches
from pipeline.models.shared_batch import SharedBatchNorm
from tests.fixtures.models import TINY


def images(count: int = 2, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (count, 4, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("model", params.load().networks, ids=lambda model: f"{model.backbone}-{model.size}")
def test_every_block_of_the_default_models_is_attended(model: params.NetworkModel) -> None:
    network = Network(model).eval()
    blocks = [block for stage in ("layer1", "layer2", "layer3", "layer4") for block in getattr(network.backbone, stage)]
    assert sum(isinstance(module, CBAM) for module in network.modules()) == len(blocks)
    assert network(images()).shape == (2, 28)


def test_attention_none_leaves_the_backbone_alone() -> None:
    network = Network(TINY.model_copy(update={"attention": "none"}))
    assert not any(isinstance(module, CBAM) for module in network.modules())


@pytest.mark.parametrize(
    "name", ["seresnet50", "ecaresnet26t", "resnetrs50", "seresnext50_32x4d", "seresnext26d_32x4d", "senet154"]
)
@pytest.mark.parametrize("attention", ["none", "nonlocal"])
def test_a_backbone_keeps_the_attention_that_it_brings(name: str, attention: str) -> None:
    with torch.device("meta"):
        own = set(timm.create_model(name, pretrained=False, num_classes=0).state_dict())
        ours = set(
            Network(TINY.model_copy(update={"backbone": name, "widths": None, "attention": attention})).state_dict()
        )
    assert any(".se." in weight for weight in own)
    renamed = {weight.replace("_nonlocal", "") for weight in ours}
    assert {f"backbone.{weight}" for weight in own if ".se." in weight} <= renamed


@pytest.mark.parametrize(
    "name",
    [
        "seresnet50",
        "seresnext50_32x4d",
        "ecaresnet50t",
        "resnetrs50",
        "resnext50_32x4d",
        "wide_resnet50_2",
        "resnetaa50d",
    ],
)
def test_cbam_replaces_the_attention_that_a_backbone_brings(name: str) -> None:
    with torch.device("meta"):
        network = Network(TINY.model_copy(update={"backbone": name, "widths": None, "attention": "cbam"}))
    assert sum(isinstance(module, CBAM) for module in network.modules()) == 3 + 4 + 6 + 3
    assert not any(".se.fc" in name or ".se.conv" in name for name in network.state_dict())


@pytest.mark.parametrize("name", ["resnet10t", "resnet26t", "resnet18.a1_in1k", "resnetblur18"])
def test_stems_and_names_of_other_kinds_are_attended_and_keep_widths(name: str) -> None:
    network = Network(TINY.model_copy(update={"backbone": name, "widths": (8, 16, 24, 32), "attention": "cbam"})).eval()
    blocks = sum(len(getattr(network.backbone, f"layer{stage}")) for stage in (1, 2, 3, 4))
    assert sum(isinstance(module, CBAM) for module in network.modules()) == blocks
    assert network(images()).shape == (2, 28)


def test_the_input_is_not_changed_in_place() -> None:
    batch = images()
    before = batch.clone()
    Network(TINY).eval()(batch)
    assert torch.equal(batch, before)


def test_the_first_predictions_are_the_label_frequencies() -> None:
    network = Network(TINY).eval()
    prior = torch.linspace(0.01, 0.6, 28)
    network.initialise(prior, torch.zeros(4), torch.ones(4))
    assert network.pooled is not None
    torch.testing.assert_close(network.pooled.bias.sigmoid(), prior)


def test_per_image_normalisation_cancels_exposure_and_offset_but_not_noise() -> None:
    normalise = Normalise("image", gain=1)
    batch = images() // 4 + 20
    torch.testing.assert_close(normalise(batch), normalise(batch * 2 - 10), rtol=1e-5, atol=1e-5)
    out = normalise(batch)
    torch.testing.assert_close(out.mean((2, 3)), torch.zeros(2, 4), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.std((2, 3), correction=0), torch.ones(2, 4))
    faint = (images() > 127).to(torch.uint8)  # one grey level of noise in an empty channel
    assert normalise(faint).abs().max() < 0.2


def test_dataset_normalisation_uses_the_stored_statistics() -> None:
    normalise = Normalise("dataset", gain=1)
    normalise.mean.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    normalise.std.copy_(torch.tensor([0.5, 0.5, 0.25, 0.25]))
    out = normalise(torch.full((1, 4, 2, 2), 255, dtype=torch.uint8))
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor([1.8, 1.6, 2.8, 2.4]))


def drawn_gain(normalise: Normalise, batch: torch.Tensor, seed: int) -> torch.Tensor:
    """The factor of each channel of each image in training, (B, 4) float64; fails if it is not the same everywhere."""
    torch.manual_seed(seed)
    found, plain = normalise.train()(batch).double(), normalise.eval()(batch).double()
    factors: torch.Tensor = (found * plain).sum((2, 3)) / plain.square().sum((2, 3))
    torch.testing.assert_close(found, factors[..., None, None] * plain, rtol=1e-5, atol=1e-5)
    return factors


@pytest.mark.parametrize("mode", ["image", "dataset"])
def test_gain_multiplies_each_channel_of_each_image_in_training_alone(mode: str) -> None:
    normalise, batch = Normalise(mode, gain=1.5), images(500, size=4)
    assert torch.equal(normalise.eval()(batch), Normalise(mode, gain=1).train()(batch))
    found = drawn_gain(normalise, batch, seed=0)
    assert found.min() >= 1 / 1.5 - 1e-5
    assert found.max() <= 1.5 + 1e-5
    # Log-uniform, and drawn anew for each: sorted, 2000 of them are close to their expected values.
    spread = (found.log() / math.log(1.5)).flatten().sort().values
    torch.testing.assert_close(spread, torch.linspace(-1, 1, 2000).double(), rtol=0, atol=0.08)
    assert torch.corrcoef(found.T).sub(torch.eye(4)).abs().max() < 0.15
    torch.testing.assert_close(drawn_gain(normalise, batch, seed=0), found, rtol=0, atol=0)
    assert not torch.isclose(drawn_gain(normalise, batch, seed=1), found).all(dim=1).any()


def test_gain_keeps_an_absent_stain_exactly_zero() -> None:
    batch = images()
    batch[0, 2], batch[1, 1:] = 0, 0
    found = Normalise("image", gain=2).train()(batch)
    assert torch.equal((found == 0).flatten(2).all(dim=2), (batch == 0).flatten(2).all(dim=2))


def test_a_network_varies_the_gain_in_training_and_not_when_it_predicts() -> None:
    model = TINY.model_copy(update={"dropout": 0.0, "attention": "none"})
    torch.manual_seed(0)
    network = Network(model).eval()
    assert torch.equal(network(images()), network(images()))
    network.normalise.train()
    assert not torch.equal(network(images()), network(images()))
    network.normalise.gain = 1
    assert torch.equal(network(images()), network(images()))


@pytest.mark.parametrize("size", [64, 96])
def test_levels_are_those_of_the_pyramid_at_strides_of_8_to_32(size: int) -> None:
    network = Network(TINY.model_copy(update={"head": "label_queries", "pyramid": 12})).eval()
    levels = network.levels(images(size=size))
    assert [level.shape for level in levels] == [(2, 12, size // stride, size // stride) for stride in (8, 16, 32)]
    assert network.queries is not None
    assert torch.equal(network(images(size=size)), network.queries(levels))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("backbone", ["test_resnet", "mobilenetv3_small_100"])
def test_sharing_batches_changes_no_weight_and_no_prediction(
    monkeypatch: pytest.MonkeyPatch, backbone: str, device: str
) -> None:
    torch.manual_seed(0)
    network = Network(TINY.model_copy(update={"backbone": backbone})).eval()
    before, names, weight = network(images()), list(network.state_dict()), next(network.parameters())
    monkeypatch.setattr(hardware, "device", lambda: torch.device(device))
    shared = share_batches(network, 1, 2)
    norm = nn.SyncBatchNorm if device == "cuda" else SharedBatchNorm
    norms = [module for module in shared.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(module, norm) for module in norms)
    assert list(shared.state_dict()) == names
    assert next(shared.parameters()) is weight
    torch.testing.assert_close(shared(images()), before)
