"""Weight files give the same network back, as the same bytes, and damaged ones are refused."""

from pathlib import Path

import pytest
import torch

from pipeline.core.errors import InputError
from pipeline.models import checkpoint
from pipeline.models.network import Network
from tests.fixtures.models import TINY
from tests.models.test_network import images


def test_a_file_gives_the_same_network_and_the_same_bytes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Network(TINY).eval()
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    checkpoint.save(first, network, TINY)
    restored, recipe = checkpoint.load(first)
    assert recipe == TINY
    torch.testing.assert_close(restored(images()), network(images()), rtol=0, atol=0)
    checkpoint.save(second, restored, recipe)
    assert first.read_bytes() == second.read_bytes()


def test_a_damaged_or_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "fold-0.safetensors"
    with pytest.raises(InputError, match=r"fold-0\.safetensors is missing"):
        checkpoint.load(path)
    checkpoint.save(path, Network(TINY), TINY)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"fold-0\.safetensors is damaged"):
        checkpoint.load(path)
