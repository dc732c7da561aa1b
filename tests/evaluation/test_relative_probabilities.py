"""Relative probabilities: each image's odds divided by the root of its expected number of labels."""

import numpy as np
import pytest
from scipy.special import expit, logit

from pipeline.evaluation.relative_probabilities import relative_probabilities


def test_the_odds_are_divided_by_the_root_of_the_expected_number_of_labels() -> None:
    probabilities = np.random.default_rng(0).random((20, 28)).astype(np.float32)
    expected = expit(logit(probabilities) - np.log(probabilities.sum(axis=1, keepdims=True)) / 2)
    np.testing.assert_allclose(relative_probabilities(probabilities), expected, rtol=1e-5)


def test_an_image_with_one_expected_label_is_unchanged_and_no_order_of_labels_is() -> None:
    one = np.array([[0.7, 0.2, 0.1]])
    np.testing.assert_allclose(relative_probabilities(one), one)
    several = np.random.default_rng(1).random((20, 28))
    assert np.array_equal(relative_probabilities(several).argsort(axis=1), several.argsort(axis=1))


@pytest.mark.filterwarnings("error")
def test_certain_labels_and_images_without_any_remain() -> None:
    certain = np.array([[1, 0, 0.5], [0, 0, 0], [1, 1, 1]])
    half = 1 / (1 + np.sqrt(1.5))
    np.testing.assert_allclose(relative_probabilities(certain), [[1, 0, half], [0, 0, 0], [1, 1, 1]])


def test_an_image_whose_labels_all_are_raised_loses_its_lead() -> None:
    shift = 3.0
    usual = np.array([[0.3, 0.02, 0.02, 0.02]])
    raised = expit(logit(np.array([[0.1, 0.1, 0.1, 0.1]])) + shift)
    assert raised[0, 0] > usual[0, 0]
    assert relative_probabilities(raised)[0, 0] < raised[0, 0]
    assert relative_probabilities(usual)[0, 0] > usual[0, 0]
