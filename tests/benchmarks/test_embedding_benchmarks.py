"""The benchmarks on embeddings at toy size: retrieval, neighbours and novelty."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from benchmarks import neighbours, novelty, retrieval
from benchmarks.retrieval import average_precisions, neighbour_model, neighbour_probabilities, rate, search
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.evaluation.embedding_files import Embeddings, write_embeddings

SAMPLES = 90


def known(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings that show the labels and, less clearly, the group; labels, and groups of three."""
    groups = np.arange(SAMPLES) // 3
    truth = np.zeros((SAMPLES // 3, 28), dtype=np.bool_)
    truth[np.arange(SAMPLES // 3), np.arange(SAMPLES // 3) % 4] = True
    truth = truth[groups]
    vectors = 3 * truth[:, :6] + np.eye(30)[groups, :6] + 0.3 * generator.standard_normal((SAMPLES, 6))
    return vectors.astype(np.float32), truth, groups


def test_average_precision_is_scikit_learns() -> None:
    relevant = np.random.default_rng(0).random((20, 15)) < 0.3
    relevant[3] = False
    ranks = -np.arange(15)
    for row, found in zip(relevant, average_precisions(relevant), strict=True):
        if row.any():
            assert found == pytest.approx(average_precision_score(row, ranks))
        else:
            assert np.isnan(found)


def test_embeddings_that_show_the_labels_find_them_and_noise_finds_chance() -> None:
    generator = np.random.default_rng(0)
    vectors, truth, groups = known(generator)
    names = groups.astype(np.str_)
    asked = groups % 3 == 0
    good = rate([search(vectors[~asked], vectors[asked], (truth[~asked], truth[asked]), names[asked], own=False)])
    assert good["first"] == good["same"] == 1
    assert good["mAP"] > 0.95
    assert good["chance"] == pytest.approx(0.25, abs=0.05)
    noise = generator.standard_normal(vectors.shape).astype(np.float32)
    bad = rate([search(noise, noise, (truth, truth), names, own=True)])
    assert bad["first_low"] < 0.27 < bad["first_high"] + 0.1
    assert bad["queries"] == SAMPLES


def test_the_gain_over_other_embeddings_is_the_difference_on_the_same_queries() -> None:
    generator = np.random.default_rng(0)
    vectors, truth, groups = known(generator)
    noise = generator.standard_normal(vectors.shape).astype(np.float32)
    good, bad = ([search(each, each, (truth, truth), groups.astype(np.str_), own=True)] for each in (vectors, noise))
    found, alone = rate(good, "x_", bad), rate(bad)
    for score in ("first", "same", "mAP"):
        assert found[f"x_gain_{score}"] == pytest.approx(found[f"x_{score}"] - alone[score])
        assert found[f"x_gain_{score}_low"] < found[f"x_gain_{score}"] < found[f"x_gain_{score}_high"]
    same = rate(good, "", good)
    assert same["gain_mAP_low"] == same["gain_mAP"] == same["gain_mAP_high"] == 0


def test_a_sample_is_never_found_for_itself() -> None:
    truth = np.eye(28, dtype=np.bool_)[:10]
    vectors = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)
    alone = search(vectors, vectors, (truth, truth), np.arange(10).astype(np.str_), own=True)
    assert alone.relevant.shape == (10, 9)
    assert not alone.relevant.any()


def test_probabilities_are_weighted_means_with_the_share_as_one_more_sample() -> None:
    labels = np.zeros((1, 2, 28), dtype=np.bool_)
    labels[0, 0, 3] = labels[0, 1, 5] = True
    share = np.full(28, 0.1)
    found = neighbour_probabilities(np.array([[0.9, 0.8]], np.float32), labels, share, sharpness=10.0)
    weight = np.exp(-1.0)
    assert found[0, 3] == pytest.approx((1 + 0.1) / (2 + weight), rel=1e-5)
    assert found[0, 5] == pytest.approx((weight + 0.1) / (2 + weight), rel=1e-5)
    assert found[0, 0] == pytest.approx(0.1 / (2 + weight), rel=1e-5)


def test_the_model_of_neighbours_does_not_see_the_labels_of_its_own_fold() -> None:
    vectors, truth, groups = known(np.random.default_rng(0))
    folds = groups % 3
    by_fold = dict.fromkeys(range(3), vectors)
    found = neighbour_model(by_fold, truth, folds)
    assert average_precision_score(truth[:, :4], found[:, :4]) > 0.95
    # A label that only one fold has cannot be predicted there.
    changed = truth.copy()
    changed[folds == 1, 9] = True
    assert neighbour_model(by_fold, changed, folds)[folds == 1, 9].max() == 0


def test_files_by_several_models_are_refused(tmp_path: Path) -> None:
    mixed = Embeddings(np.array(["a", "b"]), np.array(["m", "m"]), np.array([0, 1]), np.zeros((2, 3), np.float32))
    write_embeddings(tmp_path / "x.npz", mixed, ".npz")
    with pytest.raises(InputError, match=r"x\.npz has embeddings by several models"):
        retrieval.read_embeddings(tmp_path / "x.npz")


def test_all_methods_find_the_same_neighbours(capsys: pytest.CaptureFixture[str]) -> None:
    neighbours.main(gallery_size=700, queries=40, components=16, count=5, rounds=1)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["gallery"], figures["queries"]) == (700, 40)
    assert figures["seconds"] > 0
    assert "scikit-learn" in figures["others"]


@pytest.mark.parametrize("name", list(novelty.ALTERATIONS))
def test_alterations_keep_shape_and_change_what_they_say(name: str) -> None:
    image = np.random.default_rng(0).integers(1, 256, (32, 32, 4), dtype=np.uint8)
    altered = novelty.ALTERATIONS[name](image)
    assert altered.shape == image.shape
    assert altered.dtype == np.uint8
    same = [(altered[..., place] == image[..., place]).all() for place in range(4)]
    changed = {
        "test images": (),
        "protein and nucleus swapped": ("green", "blue"),
        "nucleus and microtubules swapped": ("blue", "red"),
        "no protein": ("green",),
        "no nucleus": ("blue",),
        "no microtubules": ("red",),
        "no endoplasmic reticulum": ("yellow",),
    }.get(name, CHANNELS)
    assert same == [channel not in changed for channel in CHANNELS]


def test_the_share_of_flagged_samples_has_a_limit_where_all_or_none_are() -> None:
    groups = np.repeat(np.arange(20), 2).astype(np.str_)
    flagged = np.arange(40) < 10
    found, low, high = novelty.share(flagged, groups)
    assert found == 0.25
    assert 0 < low < 0.25 < high < 0.6
    # Clopper and Pearson: 20 of 20 are compatible with a share of .832.
    assert novelty.share(np.ones(40, np.bool_), groups) == pytest.approx((1, 0.025 ** (1 / 20), 1))
    assert novelty.share(np.zeros(40, np.bool_), groups)[2] == pytest.approx(0.168, abs=1e-3)


def test_photographs_are_samples_of_four_channels() -> None:
    images, names = novelty.photographs(48)
    assert images.shape == (3 * novelty.WINDOWS, 48, 48, 4)
    assert pd.Series(names).nunique() == 3
    mean = (images[..., 0].astype(int) + images[..., 2]) / 2
    assert np.abs(mean - images[..., 3]).mean() < 3
