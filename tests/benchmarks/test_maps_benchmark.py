"""How attention maps are scored: hits within the tolerance, chance level, AUC, and constant maps."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.maps import score_map, with_interval


def spot(row: int, column: int) -> np.ndarray:
    found = np.zeros((512, 512), np.float32)
    found[row, column] = 1
    return found


def test_a_hit_is_within_the_tolerance() -> None:
    mask = np.zeros((512, 512), np.bool_)
    mask[100:200, 100:200] = True
    assert score_map(spot(150, 150), mask)[0]
    assert score_map(spot(150, 214), mask)[0]
    assert not score_map(spot(150, 216), mask)[0]


def test_the_chance_level_is_the_share_within_the_tolerance() -> None:
    mask = np.zeros((512, 512), np.bool_)
    mask[:, :100] = True
    assert score_map(spot(0, 0), mask)[1] == pytest.approx(115 / 512)


def test_the_auc_is_one_for_the_mask_itself_and_a_half_for_a_constant_map() -> None:
    mask = np.random.default_rng(0).random((64, 64)) < 0.3
    assert score_map(mask.astype(np.float32), mask)[2] == 1
    hit, _, auc = score_map(np.zeros((64, 64), np.float32), mask)
    assert not hit
    assert auc == 0.5


def test_the_mean_is_over_antibodies_and_lies_in_its_interval() -> None:
    values, groups = pd.Series([1.0, 1.0, 1.0, 0.0]), pd.Series(["a", "a", "a", "b"])
    assert with_interval(values, groups).startswith("0.500 (0.000 to 1.000)")
    assert with_interval(pd.Series([0.25]), pd.Series(["a"])) == "0.250"
