"""Pre-training without labels: each objective learns, sees nothing of what it hides, and resumes to the same bytes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.core.params import BackboneModel, encoder_section, load_encoder
from pipeline.models.autoencoder import PROTEIN, STRIDE, Autoencoder, Denoise, MaskPatches
from pipeline.models.network import Network
from pipeline.models.shared_batch import share_random
from pipeline.training import reconstruction
from pipeline.training.distributed import World
from pipeline.training.reconstruction import EpochErrors, ReconstructionLearner, fit_autoencoder, spread
from pipeline.training.saved_states import SavedStates
from tests.fixtures.models import TINY
from tests.training.test_loop import MACHINE

SIDE = 32
TASK = params.load().pretrain.model_copy(
    update={"mask_patch": 8, "epochs": 6, "batch_size": 8, "learning_rate": 1e-2, "ema_decay": 0.8, "start": False}
)
PLAIN = TINY.augment.model_copy(update={"warp": 0, "gamma": 1, "noise": 0})
OBJECTIVES = ("denoise", "masked", "protein")


def task(objective: str, **changes: object) -> params.Pretrain:
    return TASK.model_copy(update={"objective": objective, **changes})


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> BackboneModel:
    path = tmp_path_factory.mktemp("encoder") / "tiny.encoder.json"
    path.write_text(encoder_section(TINY.model_copy(update={"augment": PLAIN, "size": SIDE})))
    return load_encoder(path, TASK)


def stripes(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Stripes of a random period, direction and phase in all four channels: each part tells the others."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    images = np.empty((count, SIDE, SIDE, 4), np.uint8)
    for image in images:
        along = rows if random.random() < 0.5 else columns
        image[:] = (127 + 100 * np.sin(2 * np.pi * along / 16 + random.uniform(0, 2 * np.pi)))[..., None]
        image[..., PROTEIN] = 255 - image[..., PROTEIN]
    return images


def table(count: int) -> pd.DataFrame:
    return pd.DataFrame({"source": "s", "row": range(count), "target": ""})


def autoencoder(encoder: BackboneModel, settings: params.Pretrain) -> Autoencoder:
    torch.manual_seed(settings.seed)
    no_gain = encoder.augment.model_copy(update={"gain": 1})
    return Autoencoder(Network(encoder.model_copy(update={"augment": no_gain})), settings)


def run(
    encoder: BackboneModel, settings: params.Pretrain, states: SavedStates, stop_after: int | None = None
) -> tuple[list[EpochErrors], Autoencoder, reconstruction.Shown]:
    rows: list[EpochErrors] = []

    def on_errors(row: EpochErrors) -> None:
        rows.append(row)
        if row.epoch == stop_after:
            raise KeyboardInterrupt

    start = autoencoder(encoder, settings)
    trained, shown = fit_autoencoder(
        start, table(64), {"s": stripes(64)}, encoder, settings, MACHINE, on_errors, states
    )
    return rows, trained, shown


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_objective_learns_a_planted_pattern(encoder: BackboneModel, tmp_path: Path, objective: str) -> None:
    rows, _, shown = run(encoder, task(objective), SavedStates(tmp_path, "run"))
    assert [row.epoch for row in rows] == list(range(TASK.epochs))
    assert rows[-1].train_loss < rows[0].train_loss / 2
    assert rows[-1].loss < 0.5 * rows[-1].mean_loss, "nearer than each channel's mean"
    assert len({row.mean_loss for row in rows}) == 1, "the same corruption after each epoch"
    target, scored = shown["target"].astype(float), shown["scored"].astype(float)
    errors = [float((((image - target) ** 2) * scored).sum()) for image in (shown["output"], np.zeros_like(target))]
    assert errors[0] < 0.5 * errors[1]
    assert target.shape == (6, 4, SIDE // STRIDE, SIDE // STRIDE)


def test_an_interrupted_run_resumes_to_the_same_bytes(encoder: BackboneModel, tmp_path: Path) -> None:
    settings = task("masked", epochs=3)
    rows, whole, shown = run(encoder, settings, SavedStates(tmp_path / "whole", "run"))
    states = SavedStates(tmp_path / "states", "run")
    with pytest.raises(KeyboardInterrupt):
        run(encoder, settings, states, stop_after=1)
    again, resumed, shown_again = run(encoder, settings, states)
    assert again == rows
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert all(np.array_equal(shown[name], shown_again[name]) for name in shown)


def batch(count: int = 4) -> Tensor:
    return torch.from_numpy(stripes(count)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("normalise", ["image", "dataset"])
def test_what_is_masked_does_not_reach_the_output(encoder: BackboneModel, normalise: str) -> None:
    found = autoencoder(encoder.model_copy(update={"normalise": normalise}), task("masked")).eval()
    assert isinstance(found.corruption, MaskPatches)
    images = batch()
    hidden = found.corruption.draw(images)
    others = torch.randint(0, 256, images.shape, dtype=torch.uint8)
    changed = torch.where(hidden > 0, others, images)
    assert not torch.equal(changed, images)
    with torch.no_grad():
        first, second = (found.decode(found.corruption.hide(x, found.normalise, hidden)[0]) for x in (images, changed))
        visible = torch.where(hidden > 0, images, others)
        assert torch.equal(first, second)
        assert not torch.equal(first, found.decode(found.corruption.hide(visible, found.normalise, hidden)[0]))


def test_the_mask_hides_its_share_in_whole_patches_of_every_image(encoder: BackboneModel) -> None:
    mask = MaskPatches(0.5, 8)
    torch.manual_seed(0)
    hidden = mask.draw(batch(32))
    assert (hidden.mean((1, 2, 3)) == 0.5).all()
    patches = hidden.unfold(2, 8, 8).unfold(3, 8, 8).flatten(4)
    assert (patches.amax(-1) == patches.amin(-1)).all()
    assert len(torch.unique(hidden.flatten(1), dim=0)) > 16
    shown, scored = mask.hide(batch(32), autoencoder(encoder, TASK).normalise, hidden)
    assert (shown[hidden.expand_as(shown) > 0] == 0).all()
    assert torch.equal(scored, hidden)
    seen = torch.where(hidden > 0, torch.nan, shown)
    torch.testing.assert_close(seen.nanmean((2, 3)), torch.zeros(32, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.square().nanmean((2, 3)), torch.ones(32, 4), atol=1e-4, rtol=0)


def test_the_protein_does_not_reach_its_reconstruction(encoder: BackboneModel) -> None:
    found = autoencoder(encoder, task("protein")).eval()
    images, others = batch(), batch()
    others[:, PROTEIN] = torch.randint(0, 256, others[:, PROTEIN].shape, dtype=torch.uint8)
    with torch.no_grad():
        first, second = found.reconstruct(images), found.reconstruct(others)
    assert torch.equal(first.output, second.output)
    assert not torch.equal(first.errors(), second.errors())
    assert first.scored.sum((0, 2, 3)).nonzero().flatten().tolist() == [PROTEIN]


def test_the_loss_is_that_of_numpy_and_does_not_depend_on_exposure(encoder: BackboneModel) -> None:
    found = autoencoder(encoder, task("denoise", noise=1e-6)).eval()
    bright = batch()
    dark = bright // 2
    with torch.no_grad():
        first, second = found.reconstruct(bright), found.reconstruct(dark)
    expected = ((first.output - first.target).numpy() ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(first.errors().numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(first.errors().numpy(), second.errors().numpy(), rtol=0.05)


@pytest.mark.parametrize("backbone", ["test_convnext", "test_vit"])
def test_any_backbone_with_feature_maps_can_be_pre_trained(encoder: BackboneModel, backbone: str) -> None:
    other = encoder.model_copy(update={"backbone": backbone, "attention": "none", "size": 64})
    found = autoencoder(other, task("masked"))
    images = torch.randint(0, 256, (2, 4, 64, 64), dtype=torch.uint8)
    assert found.reconstruct(images).output.shape == (2, 4, 32, 32)
    found(images).mean().backward()
    assert all(weight.grad is not None for weight in found.parameters())


@pytest.mark.parametrize("corruption", [Denoise(0.5), MaskPatches(0.5, 8)], ids=["denoise", "masked"])
def test_several_processes_corrupt_a_batch_as_one_does(
    encoder: BackboneModel, corruption: Denoise | MaskPatches
) -> None:
    images, normalise = batch(8), autoencoder(encoder, TASK).normalise

    def corrupted(rank: int, size: int) -> Tensor:
        share_random(corruption, rank, size)
        torch.manual_seed(3)
        found: Tensor = corruption(images[rank::size], normalise)[0]
        return found

    for rank in (0, 1):
        assert torch.equal(corrupted(rank, 2), corrupted(0, 1)[rank::2])


def test_the_main_process_alone_evaluates_what_several_train(encoder: BackboneModel) -> None:
    recipe = reconstruction.PretrainRecipe.of(TASK, "fp32")
    learner = ReconstructionLearner(autoencoder(encoder, task("denoise")), recipe, 1, World(1, 2))
    trained, averaged = (network.corruption for network in (learner.network, learner.ema.network))
    assert isinstance(trained, Denoise)
    assert isinstance(averaged, Denoise)
    assert (trained.part, averaged.part) == ((1, 2), (0, 1))


def test_a_patch_as_large_as_an_image_is_refused(encoder: BackboneModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pretrain\.mask_patch is 32, and the images have 32 px .*: choose patches"):
        run(encoder, task("masked", mask_patch=32), SavedStates(tmp_path, "run"))


def test_evaluated_images_are_spread_over_all() -> None:
    assert spread(table(5), 64)["row"].tolist() == [0, 1, 2, 3, 4]
    assert spread(table(101), 3)["row"].tolist() == [0, 50, 100]
