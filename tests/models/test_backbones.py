"""Backbones of other families: feature maps, attention, gradients, saved weights, and what is refused."""

import copy
import re
from pathlib import Path

import cv2
import pytest
import timm
import torch
from sklearn.datasets import load_sample_image
from torch import nn

from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.inference.attention_maps import label_maps
from pipeline.models import backbones, checkpoint
from pipeline.models.attention import CBAM, NonLocal
from pipeline.models.network import Network
from pipeline.models.pretrained import start_from_weights
from pipeline.models.provenance import Provenance
from tests.fixtures.models import FROZEN, TINY

CONVOLUTIONAL = [
    "resnet18",
    "resnext50_32x4d",
    "seresnet50",
    "efficientnet_b0",
    "tf_efficientnet_lite0",
    "mobilenetv3_small_100",
    "convnext_atto",
    "inception_v3",
    "xception41",
    "densenet121",
]
TRANSFORMERS = ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"]
SIZE = 96


def model_of(backbone: str, **changes: object) -> params.NetworkModel:
    shape = {"backbone": backbone, "widths": None, "size": SIZE, "head": "label_queries", "pyramid": 8}
    return TINY.model_copy(update=shape | changes)


def images(count: int = 2, size: int = SIZE) -> torch.Tensor:
    return torch.randint(0, 256, (count, 4, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def networks() -> dict[str, Network]:
    """A network of each family, with CBAM where it has a place."""
    torch.manual_seed(0)
    attention = dict.fromkeys(CONVOLUTIONAL, "cbam") | dict.fromkeys((*TRANSFORMERS, "legacy_xception"), "none")
    return {name: Network(model_of(name, attention=kind)).eval() for name, kind in attention.items()}


@pytest.mark.parametrize("backbone", [*CONVOLUTIONAL, "legacy_xception", *TRANSFORMERS])
def test_every_weight_takes_part_and_every_map_has_its_stated_channels(
    backbone: str, networks: dict[str, Network]
) -> None:
    network = copy.deepcopy(networks[backbone]).train()
    maps = network.feature_maps(images())
    assert [found.shape[:2] for found in maps] == [(2, channels) for channels in network.stages.channels]
    sides = [found.shape[-1] for found in maps]
    strides = [16] if backbone.startswith("vit") else [8, 16, 32]
    if "inception" in backbone:  # its convolutions are not padded
        assert sides == sorted(sides, reverse=True)
    else:
        assert sides == [SIZE // stride for stride in strides]
    network.logits(maps).square().mean().backward()  # type: ignore[no-untyped-call]
    assert not [name for name, weight in network.named_parameters() if weight.grad is None]


@pytest.mark.parametrize("backbone", ["efficientnet_b0", "inception_v3", "vit_tiny_patch16_224"])
def test_maps_are_drawn_and_show_the_label_s_own_positions(backbone: str, networks: dict[str, Network]) -> None:
    maps = label_maps(networks[backbone], images(), torch.tensor([3, 21]), 48)
    gates = set() if "vit" in backbone else {f"gate_{stage}" for stage in (1, 2, 3, 4)}
    assert set(maps) == {"gradient", "query"} | gates
    assert all(found.shape == (2, 48, 48) and found.amax() > 0 for found in maps.values())


@pytest.mark.parametrize("backbone", CONVOLUTIONAL[3:])
def test_attention_follows_each_stage_of_other_convolutional_networks(
    backbone: str, networks: dict[str, Network]
) -> None:
    network = networks[backbone]
    assert sum(isinstance(part, CBAM) for part in network.modules()) == 4
    with torch.no_grad():
        before = network.feature_maps(images())
        gates = [part for part in network.modules() if isinstance(part, CBAM)]
        network = copy.deepcopy(network)
        closed = [part for part in network.modules() if isinstance(part, CBAM)][1]
        closed.spatial.scale = 0
        after = network.feature_maps(images())
    assert not after[0].any()  # the stage of stride 8 is what its attention returns
    assert not torch.equal(after[1], before[1])  # and what the next stage sees
    assert gates[1].spatial.scale == 2  # the copy's attention is its own


def test_gates_start_as_the_identity_and_non_local_blocks_too() -> None:
    maps = {}
    for attention in ("none", "cbam", "nonlocal"):
        torch.manual_seed(0)
        network = Network(model_of("mobilenetv3_small_100", attention=attention)).eval()
        with torch.no_grad():
            maps[attention] = network.feature_maps(images())
    assert sum(isinstance(part, NonLocal) for part in network.modules()) == 2
    for attention in ("cbam", "nonlocal"):
        for found, plain in zip(maps[attention], maps["none"], strict=True):
            torch.testing.assert_close(found, plain)


@pytest.mark.parametrize("backbone", [*TRANSFORMERS, "legacy_xception"])
def test_attention_without_a_place_is_refused(backbone: str) -> None:
    with pytest.raises(InputError, match=f"attention cbam has no place in backbone {backbone}.*attention: none"):
        Network(model_of(backbone))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet999"}, "timm has no backbone 'resnet999': try .*resnet"),
        ({"backbone": "ResNet34"}, "timm has no backbone 'ResNet34': try resnet34 or"),
        ({"backbone": "resnet34 "}, "timm has no backbone 'resnet34 ': try resnet34 or"),
        ({"backbone": "timm/resnet34"}, "timm has no backbone 'timm/resnet34': try resnet34 or"),
        ({"backbone": "hf-hub:timm/resnet18.a1_in1k"}, "timm has no backbone .*: try resnet18 or"),
        ({"backbone": "resnet18.nonsense", "attention": "none"}, "timm cannot build backbone resnet18.nonsense"),
        ({"backbone": "senet154", "widths": (8, 8, 8, 8)}, "widths"),
        ({"backbone": "ecaresnet50d_pruned"}, "timm cannot build backbone ecaresnet50d_pruned .*attention cbam"),
        ({"backbone": ""}, "timm has no backbone '': try resnet34$"),
        ({"backbone": "anything at all"}, "timm has no backbone 'anything at all'"),
        ({"backbone": "efficientnet_b0", "widths": (8, 8, 8, 8)}, "widths: null for backbone efficientnet_b0"),
        ({"backbone": "efficientnet_b0", "attention": "self"}, "use channel, spatial, cbam, nonlocal or none"),
    ],
)
def test_what_does_not_exist_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Network(model_of(str(changes["backbone"]), **{key: changes[key] for key in changes.keys() - {"backbone"}}))


@pytest.mark.parametrize(
    ("backbone", "size", "message"),
    [
        ("inception_v3", 64, "possible: 75$"),
        ("vit_small_patch14_dinov2", 96, "possible: 84 or 98$"),
        ("mixer_b16_224", 96, "possible: only 192, so augment.crop 1$"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_the_nearest_that_do(backbone: str, size: int, message: str) -> None:
    model = model_of(backbone, size=192 if "mixer" in backbone else size, attention="none")
    with pytest.raises(InputError, match=f"backbone {backbone} cannot process images of {size} px.*{message}"):
        backbones.check_sizes(model, [size])


def test_sizes_that_fit_pass_whatever_the_model_was_made_for() -> None:
    for backbone in ("resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"):
        backbones.check_sizes(model_of(backbone, attention="none", size=128), [128, 64])


@pytest.mark.parametrize("backbone", ["efficientnet_b0", "densenet121", "vit_tiny_patch16_224"])
def test_saved_weights_are_read_back(backbone: str, networks: dict[str, Network], tmp_path: Path) -> None:
    network = networks[backbone]
    attention = "none" if "vit" in backbone else "cbam"
    checkpoint.save(tmp_path / "w.safetensors", network, model_of(backbone, attention=attention), Provenance())
    read, _ = checkpoint.load(tmp_path / "w.safetensors")
    with torch.no_grad():
        assert torch.equal(read(images()), network(images()))


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_100", "convnext_atto", "vit_tiny_patch16_224"])
def test_weights_for_photographs_fit_whatever_head_and_size_they_come_with(backbone: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs: nn.Module = timm.create_model(backbone, pretrained=False).eval()
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    changes = {"pretrained": str(tmp_path / "theirs.pth"), "attention": "none", "yellow": "zero", "size": 224}
    network = Network(model_of(backbone, **changes)).eval()
    start_from_weights(network, model_of(backbone, **changes))
    x = torch.randn(1, 4, 224, 224, generator=torch.Generator().manual_seed(0))  # green, blue, red, yellow
    with torch.no_grad():
        found = network.stages.maps(network.backbone, x)[-1]
        expected = network.stages.maps(theirs, x[:, [2, 0, 1]])[-1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    smaller = model_of(backbone, **changes | {"size": SIZE})
    start_from_weights(Network(smaller), smaller)  # position embeddings are resized


def test_real_weights_for_photographs_are_read_by_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [recipe] = re.findall(r"```python\n(import timm.*?)```", Path("docs/recipes.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("weights").mkdir()
    exec(recipe, {})
    changes = {"pretrained": "weights/efficientnet-lite0.pth", "yellow": "zero", "attention": "none", "size": 224}
    model = model_of("tf_efficientnet_lite0", **changes)
    network = Network(model).eval()
    start_from_weights(network, model)
    theirs = timm.create_model("tf_efficientnet_lite0", checkpoint_path="weights/efficientnet-lite0.pth").eval()
    flower = load_sample_image("flower.jpg")  # red, green, blue
    shown = torch.from_numpy(cv2.resize(flower, (224, 224), interpolation=cv2.INTER_AREA)).permute(2, 0, 1)[None]
    x = (shown / 255 - 0.5) / 0.5
    with torch.no_grad():
        assert theirs(x).argmax() == 985  # a daisy, among the 1000 classes of ImageNet
        ours = network.stages.maps(network.backbone, torch.cat([x[:, [1, 2, 0]], torch.zeros_like(x[:, :1])], dim=1))
        expected = network.stages.maps(theirs, x)
    for found, wanted in zip(ours, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_resnet_without_batch_norm_gets_non_local_blocks_too() -> None:
    with torch.device("meta"):
        network = Network(model_of("resnet50_gn", attention="nonlocal"))
    blocks = [part for part in network.modules() if isinstance(part, NonLocal)]
    assert [block.norm.num_features for block in blocks] == 2 * [512] + 3 * [1024]


def test_a_frozen_transformer_has_features_of_its_single_stage() -> None:
    model = FROZEN.model_copy(update={"backbone": "vit_tiny_patch16_224", "attention": "none", "size": SIZE})
    network = Network(model).eval()
    with torch.no_grad():
        assert network.head_features(images()).shape == (2, 3 * 192)
