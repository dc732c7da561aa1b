"""Weights to start from: what is taken, what stays fresh, and what is refused."""

import re
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from ssl import SSLCertVerificationError
from threading import Thread
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import timm
import torch
import torchvision
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.models import backbones, checkpoint
from pipeline.models.network import Network
from pipeline.models.pretrained import four_channels, start_from_weights
from pipeline.models.provenance import Provenance
from tests.fixtures.models import TINY

RED, GREEN, BLUE = range(3)
NOWHERE = "http://127.0.0.1:9"
"""An address that refuses connections."""


def changed(**update: Any) -> params.NetworkModel:
    return TINY.model_copy(update=update)


def rgb_network(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    network: nn.Module = timm.create_model(TINY.backbone, pretrained=False).eval()
    return network


def saved(network: nn.Module, path: Path) -> str:
    save_file(network.state_dict(), path)
    return str(path)


def started(model: params.BackboneModel) -> Network:
    torch.manual_seed(0)
    network = Network(model)
    start_from_weights(network, model)
    return network.eval()


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> set[str]:
    return {name for name in first.keys() & second.keys() if torch.equal(first[name], second[name])}


def test_without_yellow_it_is_the_network_for_photographs(tmp_path: Path) -> None:
    theirs = rgb_network()
    path = saved(theirs, tmp_path / "rgb.safetensors")
    ours = started(changed(pretrained=path, yellow="zero", attention="none"))
    x = noise(2, 4, 64, 64)  # green, blue, red, yellow
    expected = theirs.forward_features(x[:, [2, 0, 1]])  # type: ignore[operator]  # timm's method
    torch.testing.assert_close(ours.stages.maps(ours.backbone, x)[-1], expected)


@pytest.mark.parametrize(("yellow", "weights"), [("mean", (0.5, 0.5)), ("red", (1.0, 0.0)), ("zero", (0.0, 0.0))])
def test_filters_go_by_colour_name_and_keep_their_shape(yellow: str, weights: tuple[float, float]) -> None:
    rgb = noise(8, 3, 3, 3)
    filters = four_channels(rgb, yellow)
    scale = filters[:, 2] / rgb[:, RED]
    torch.testing.assert_close(scale, scale[:, :1, :1].expand_as(scale))  # one number a filter
    torch.testing.assert_close(filters[:, 0], scale * rgb[:, GREEN])
    torch.testing.assert_close(filters[:, 1], scale * rgb[:, BLUE])
    torch.testing.assert_close(filters[:, 3], scale * (weights[0] * rgb[:, RED] + weights[1] * rgb[:, GREEN]))


@pytest.mark.parametrize("yellow", ["mean", "red", "zero"])
def test_the_stem_s_activations_keep_their_variance(yellow: str) -> None:
    rgb = noise(8, 3, 3, 3)
    x = noise(16, 4, 64, 64)
    before = nn.functional.conv2d(x[:, :3], rgb).var((0, 2, 3))
    after = nn.functional.conv2d(x, four_channels(rgb, yellow)).var((0, 2, 3))
    torch.testing.assert_close(after, before, rtol=0.03, atol=0)


def test_a_dead_filter_stays_dead() -> None:
    assert torch.equal(four_channels(torch.zeros(2, 3, 3, 3), "mean"), torch.zeros(2, 4, 3, 3))


def test_what_photographs_do_not_bring_is_exactly_attention_and_head(tmp_path: Path) -> None:
    path = saved(rgb_network(), tmp_path / "rgb.safetensors")
    torch.manual_seed(0)
    fresh = Network(TINY).state_dict()
    kept = same(started(changed(pretrained=path)).state_dict(), fresh)
    weights = {name for name, value in fresh.items() if value.unique().numel() > 1}  # norms start alike everywhere
    assert kept & weights == {name for name in weights if ".se." in name or name.startswith("pooled.")}


def test_torchvision_s_older_files_fit(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18(weights=None).eval()
    state = {name: value for name, value in theirs.state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "resnet18.pth")
    model = changed(backbone="resnet18", pretrained=str(tmp_path / "resnet18.pth"), attention="none", yellow="zero")
    ours = started(model)
    x = noise(1, 4, 64, 64)
    theirs.fc = nn.Identity()
    pooled = ours.stages.maps(ours.backbone, x)[-1].mean((2, 3))
    torch.testing.assert_close(pooled, theirs(x[:, [2, 0, 1]]), rtol=1e-4, atol=1e-5)


def test_a_file_of_this_project_brings_attention_and_head_but_not_its_images_statistics(tmp_path: Path) -> None:
    path = tmp_path / "fold-0.safetensors"
    torch.manual_seed(5)
    trained = Network(TINY)
    trained.initialise(torch.full((28,), 0.3), torch.full((4,), 0.2), torch.full((4,), 0.1))
    checkpoint.save(path, trained, TINY, Provenance())
    state = trained.state_dict()
    ours = started(changed(pretrained=str(path))).state_dict()
    assert ours.keys() - same(ours, state) == {"normalise.mean", "normalise.std"}


@pytest.mark.parametrize("update", [{"attention": "none"}, {"head": "label_queries"}])
def test_attention_and_head_of_another_kind_stay_fresh(tmp_path: Path, update: dict[str, str]) -> None:
    path = tmp_path / "fold-0.safetensors"
    torch.manual_seed(5)
    trained = Network(changed(**update))
    checkpoint.save(path, trained, changed(**update), Provenance())
    torch.manual_seed(0)
    fresh = Network(TINY).state_dict()
    ours = started(changed(pretrained=str(path))).state_dict()
    part = ".se." if "attention" in update else "pooled."
    names = {name for name in fresh if part in name}
    assert names
    assert names <= same(ours, fresh)
    other = {name for name in ours if name not in names and not name.startswith("normalise.")}
    assert other <= same(ours, trained.state_dict())


PYRAMID = {"head": "label_queries", "pyramid": 8}


@pytest.mark.parametrize("half", [False, True])
def test_a_file_of_this_project_brings_pyramid_and_queries_to_a_model_with_the_same(tmp_path: Path, half: bool) -> None:
    path = tmp_path / "fold-0.safetensors"
    torch.manual_seed(5)
    trained = Network(changed(**PYRAMID))
    checkpoint.save(path, trained, changed(**PYRAMID), Provenance(), half=half)
    state = checkpoint.load(path)[0].state_dict()
    ours = started(changed(**PYRAMID, pretrained=str(path))).state_dict()
    assert {name.split(".")[0] for name in ours} == {"normalise", "backbone", "pyramid", "queries"}
    assert ours.keys() - same(ours, state) <= {"normalise.mean", "normalise.std"}
    assert {weight.dtype for name, weight in ours.items() if "num_batches" not in name} == {torch.float32}


def test_pyramid_and_queries_stay_fresh_if_the_weights_have_none(tmp_path: Path) -> None:
    theirs, ours = saved(rgb_network(), tmp_path / "rgb.safetensors"), tmp_path / "fold-0.safetensors"
    checkpoint.save(ours, Network(TINY), TINY, Provenance())
    torch.manual_seed(0)
    fresh = Network(changed(**PYRAMID)).state_dict()
    head = {name for name in fresh if name.startswith(("pyramid.", "queries."))}
    for path in (theirs, str(ours)):
        found = started(changed(**PYRAMID, pretrained=path)).state_dict()
        assert head <= same(found, fresh)
        assert "backbone.layer1.0.conv1.weight" in found.keys() - same(found, fresh)


def test_false_leaves_the_network_as_it_is() -> None:
    torch.manual_seed(0)
    fresh = Network(TINY).state_dict()
    assert same(started(TINY).state_dict(), fresh) == fresh.keys()


def test_another_backbone_is_refused_by_the_weights_that_tell(tmp_path: Path) -> None:
    deeper = timm.create_model("resnet18", pretrained=False)
    path = saved(deeper, tmp_path / "resnet18.safetensors")
    with pytest.raises(InputError, match=r"resnet18\.safetensors does not fit.*missing: .*unexpected: .* and \d+ more"):
        started(changed(pretrained=path))


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    state = rgb_network().state_dict()
    del state["layer2.0.bn1.weight"]
    save_file(state, tmp_path / "rgb.safetensors")
    with pytest.raises(InputError, match=r"missing: layer2\.0\.bn1\.weight$"):
        started(changed(pretrained=str(tmp_path / "rgb.safetensors")))


def test_widths_of_its_own_need_weights_of_those_widths(tmp_path: Path) -> None:
    path = saved(rgb_network(), tmp_path / "rgb.safetensors")
    with pytest.raises(
        InputError, match=r"does not fit backbone and widths.*wrong shape: .*\(.*\) instead of \(.*and \d+ more"
    ):
        started(changed(pretrained=path, widths=(8, 16, 24, 32)))


def test_a_file_of_this_project_that_is_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fold-0.safetensors"
    checkpoint.save(path, Network(TINY), TINY, Provenance())
    with pytest.raises(InputError, match=r"trained with backbone: test_resnet, but params\.yaml has resnet18"):
        started(changed(pretrained=str(path), backbone="resnet18"))
    with pytest.raises(InputError, match=re.escape("widths: None, but params.yaml has [8, 16, 24, 32]")):
        started(changed(pretrained=str(path), widths=(8, 16, 24, 32)))
    other = "paper" if TINY.gate_init == "identity" else "identity"
    with pytest.raises(InputError, match=f"gate_init: {TINY.gate_init}, but params.yaml has {other}"):
        started(changed(pretrained=str(path), gate_init=other))
    save_file(Network(TINY).state_dict(), path, {checkpoint.DESCRIPTION: '{"labels": ["cat", "dog"]}'})
    with pytest.raises(InputError, match="its labels are not this version's"):
        started(changed(pretrained=str(path)))


@pytest.mark.parametrize("name", ["absent.safetensors", "absent.pth"])
def test_an_absent_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is missing"):
        started(changed(pretrained=str(tmp_path / name)))


@pytest.mark.parametrize("content", [b"", b"no weights", b"\x80\x04."])
def test_a_file_that_is_none_of_weights_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"weights\.pth is not a weight file"):
        started(changed(pretrained=str(path)))


@pytest.mark.parametrize(
    ("container", "wrapper", "suffix"),
    [
        ("state_dict", "", ".pth"),
        ("model", "module.", ".pt"),
        ("model_state_dict", "module._orig_mod.", ".pth"),
        (None, "_orig_mod.module.", ".pth"),
        (None, "module.", ".safetensors"),
        (None, "model.", ".SAFETENSORS"),
        ("state_dict", "model.", ".ckpt"),
    ],
)
def test_what_training_programs_put_around_weights_is_taken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, container: str | None, wrapper: str, suffix: str
) -> None:
    weights = rgb_network().state_dict()
    path = tmp_path / f"run{suffix}"
    wrapped = {wrapper + name: weight for name, weight in weights.items()}
    if suffix.lower() == ".safetensors":
        save_file(wrapped, path)
    else:
        torch.save(wrapped if container is None else {"epoch": 3, container: wrapped, "lr": 0.1}, path)
    monkeypatch.setenv("HOME", str(tmp_path))
    ours = started(changed(pretrained=f"~/run{suffix}")).state_dict()
    assert torch.equal(ours["backbone.layer3.0.conv1.weight"], weights["layer3.0.conv1.weight"])


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_single_precision(tmp_path: Path, kind: torch.dtype) -> None:
    weights = {
        name: weight.to(kind) if weight.is_floating_point() else weight
        for name, weight in rgb_network().state_dict().items()
    }
    torch.save(weights, tmp_path / "rgb.pth")
    found = started(changed(pretrained=str(tmp_path / "rgb.pth"))).state_dict()["backbone.layer3.0.conv1.weight"]
    assert found.dtype == torch.float32
    assert torch.equal(found, weights["layer3.0.conv1.weight"].float())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    weights = rgb_network().state_dict()
    weights["layer3.0.conv1.weight"][0, 0, 0, 0] = value
    torch.save(weights, tmp_path / "rgb.pth")
    with pytest.raises(InputError, match=r"rgb\.pth: its weights are not finite \(layer3\.0\.conv1\.weight\)"):
        started(changed(pretrained=str(tmp_path / "rgb.pth")))


@pytest.mark.parametrize("way", ["old format", "parameters", "link"])
def test_weights_saved_in_other_ways_are_read(tmp_path: Path, way: str) -> None:
    weights, path = rgb_network().state_dict(), tmp_path / "rgb.pth"
    floats = {name: nn.Parameter(weight) for name, weight in weights.items() if weight.is_floating_point()}
    torch.save(weights | floats if way == "parameters" else weights, path, _use_new_zipfile_serialization=way == "link")
    if way == "link":
        path = tmp_path / "latest.pth"
        path.symlink_to("rgb.pth")
    found = started(changed(pretrained=str(path))).state_dict()
    assert torch.equal(found["backbone.layer3.0.conv1.weight"], weights["layer3.0.conv1.weight"])


def placed(folder: Path, what: str) -> Path:
    """Something that is found in place of a weight file."""
    path, network = folder / f"run.{what.rpartition(' ')[2]}", rgb_network()
    if "pointer" in what:
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 44000000\n")
    elif "page" in what:
        path.write_text("<!DOCTYPE html><html><title>Log in</title></html>")
    elif "folder" in what:
        path.mkdir()
    elif "lost link" in what:
        path.symlink_to(folder / "unmounted/run.pth")
    elif "module" in what:
        torch.save(network, path)
    elif "program" in what:
        torch.jit.trace(network, torch.zeros(1, 3, 32, 32)).save(str(path))  # type: ignore[no-untyped-call]
    elif "arrays" in what:
        np.savez(path, **{name: weight.numpy() for name, weight in network.state_dict().items()})
    elif "half" in what:
        save_file(network.state_dict(), path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif "renamed" in what:
        torch.save(network.state_dict(), path)
    else:
        torch.save({"state_dict": network.state_dict(), "best": np.float64(0.7)}, path)
    return path


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:FutureWarning")  # its files will be around for longer
@pytest.mark.parametrize(
    "what",
    [
        "pointer of Git LFS: pth",
        "pointer of Git LFS: safetensors",
        "page of a website: pth",
        "folder: pth",
        "folder: safetensors",
        "lost link: pth",
        "whole module: pth",
        "compiled program: pt",
        "arrays of NumPy: npz",
        "half a file: safetensors",
        "renamed file of torch: safetensors",
        "number of NumPy beside the weights: ckpt",
    ],
)
def test_what_is_found_in_place_of_weights_is_one_line(tmp_path: Path, what: str) -> None:
    path = placed(tmp_path, what)
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))} .*: \w+") as caught:
        started(changed(pretrained=str(path)))
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"epoch": 3, "weights": {"fc.weight": torch.zeros(1)}},
            "contains no state_dict, neither by itself nor as one",
        ),
        ([1, 2], "contains no state_dict"),
        ({}, "contains no state_dict"),
        ({"state_dict": {}, "path": Path("x")}, "contains other Python objects than tensors"),
    ],
)
def test_a_file_without_plain_weights_is_refused_in_one_line(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "run.pth")
    with pytest.raises(InputError, match=rf"run\.pth {message}.*: save only the network's state_dict") as caught:
        started(changed(pretrained=str(tmp_path / "run.pth")))
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_true_takes_timm_s_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = rgb_network()
    create = timm.create_model

    def hub(name: str, *, pretrained: bool, **options: Any) -> nn.Module:
        return theirs if pretrained else create(name, pretrained=False, **options)

    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    monkeypatch.setattr(timm, "create_model", hub)
    ours = started(changed(pretrained=True)).state_dict()
    assert torch.equal(ours["backbone.layer3.0.conv1.weight"], theirs.state_dict()["layer3.0.conv1.weight"])


@pytest.mark.parametrize("answers", [True, False])
def test_the_cache_alone_is_used_where_the_hub_does_not_answer(monkeypatch: pytest.MonkeyPatch, answers: bool) -> None:
    seen: list[bool] = []
    create = timm.create_model

    def hub(name: str, *, pretrained: bool, **options: Any) -> nn.Module:
        if pretrained:
            seen.append(constants.is_offline_mode())
        plain: nn.Module = create(name, pretrained=False, **options)
        return plain

    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:  # it answers every request with an error
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        if answers:
            Thread(target=server.handle_request, daemon=True).start()
        else:
            server.socket.close()
        monkeypatch.setattr(timm, "create_model", hub)
        started(changed(pretrained=True))
    assert seen == [not answers]
    assert not constants.is_offline_mode()


@pytest.mark.parametrize(
    ("error", "offline"),
    [
        (URLError(SSLCertVerificationError("a certificate that only the library knows")), False),
        (URLError(ConnectionRefusedError()), True),
        (TimeoutError(), True),
        (HTTPException("a proxy's page"), False),
        (ValueError("no scheme"), False),
    ],
)
def test_only_what_does_not_answer_is_offline(monkeypatch: pytest.MonkeyPatch, error: Exception, offline: bool) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(backbones, "urlopen", fail)
    with backbones._offline_unless_reachable():
        assert constants.is_offline_mode() == offline
    assert not constants.is_offline_mode()


def test_an_unreachable_hub_is_one_clear_message(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def hub(name: str, *, pretrained: bool, **options: Any) -> nn.Module:
        if pretrained:
            raise FileNotFoundError("cannot find the requested files in the local cache")
        plain: nn.Module = create(name, pretrained=False, **options)
        return plain

    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    monkeypatch.setattr(timm, "create_model", hub)
    with pytest.raises(InputError, match="pretrained: true needs the weights of test_resnet from the hub"):
        started(changed(pretrained=True))


def test_a_backbone_without_published_weights_says_so() -> None:
    with pytest.raises(InputError, match="timm has no weights for 'resnet200'"):
        started(changed(backbone="resnet200", pretrained=True))
