"""Weight files give the same network back, as the same bytes, and damaged ones are refused."""

from pathlib import Path

import pytest
import torch

from pipeline.core.errors import InputError
from pipeline.models import checkpoint
from pipeline.models.network import Network
from pipeline.models.provenance import Provenance
from tests.fixtures.models import TINY
from tests.models.test_network import images


def test_a_file_gives_the_same_network_and_the_same_bytes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Network(TINY).eval()
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    checkpoint.save(first, network, TINY, Provenance())
    restored, recipe = checkpoint.load(first)
    assert recipe == TINY
    torch.testing.assert_close(restored(images()), network(images()), rtol=0, atol=0)
    checkpoint.save(second, restored, recipe, Provenance())
    assert first.read_bytes() == second.read_bytes()


def test_half_stores_matrices_alone_in_float16_and_they_load_as_float32(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TINY.model_copy(update={"head": "label_queries", "pyramid": 8})
    network = Network(model).eval()
    path, again = tmp_path / "half.safetensors", tmp_path / "again.safetensors"
    checkpoint.save(path, network, model, Provenance(), half=True)
    stored, _ = checkpoint.read(path)
    own = network.state_dict()
    assert stored.keys() == own.keys()
    for name, weight in stored.items():
        assert weight.dtype == (torch.float16 if own[name].ndim > 1 else own[name].dtype), name
        torch.testing.assert_close(weight.to(own[name].dtype), own[name], rtol=2**-11, atol=2**-25, msg=name)
    restored, _ = checkpoint.load(path)
    assert {weight.dtype for weight in restored.parameters()} == {torch.float32}
    torch.testing.assert_close(restored(images(size=64)), network(images(size=64)), rtol=0, atol=0.01)
    checkpoint.save(again, restored, model, Provenance(), half=True)
    assert again.read_bytes() == path.read_bytes()
    checkpoint.save(again, network, model, Provenance())
    assert path.stat().st_size < 0.6 * again.stat().st_size


def test_a_damaged_or_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "fold-0.safetensors"
    with pytest.raises(InputError, match=r"fold-0\.safetensors is missing"):
        checkpoint.load(path)
    checkpoint.save(path, Network(TINY), TINY, Provenance())
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"fold-0\.safetensors is damaged.*train it again"):
        checkpoint.load(path)


def test_a_weight_file_can_be_read_by_whom_other_files_can(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    checkpoint.save(tmp_path / "fold-0.safetensors", Network(TINY), TINY, Provenance())
    assert (tmp_path / "fold-0.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_file_that_may_not_be_read_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    checkpoint.save(tmp_path / "fold-0.safetensors", Network(TINY), TINY, Provenance())
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError):
        checkpoint.load(tmp_path / "fold-0.safetensors")
