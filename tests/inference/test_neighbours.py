"""Nearest neighbours: scikit-learn's, in chunks and blocks of any size, without the query's own group."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from pipeline.inference import neighbours
from pipeline.inference.neighbours import Gallery


@given(st.integers(0, 2**32 - 1), st.integers(1, 90), st.integers(0, 20), st.integers(1, 6))
@settings(deadline=None, max_examples=60)
def test_they_are_scikit_learns_by_cosine_of_standardised_vectors(seed: int, size: int, asked: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    scales = 10.0 ** generator.integers(-3, 4, 5)
    vectors, queries = ((scales * (generator.standard_normal((n, 5)) + 3)).astype(np.float32) for n in (size, asked))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "CHUNK", 7)
        patch.setattr(neighbours, "BLOCK", 4)
        found = Gallery(vectors).nearest(queries, count)
    assert found.positions.shape == found.similarities.shape == (asked, min(count, size))
    if asked and size > 1:
        scaler = StandardScaler().fit(vectors.astype(np.float64))
        search = NearestNeighbors(n_neighbors=min(count, size), metric="cosine").fit(scaler.transform(vectors))
        distances, _ = search.kneighbors(scaler.transform(queries))
        np.testing.assert_allclose(1 - found.similarities, distances, atol=2e-5)
        assert all(len(set(row)) == len(row) for row in found.positions.tolist())


def test_positions_belong_to_their_similarities() -> None:
    vectors = np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32)
    gallery = Gallery(vectors)
    found = gallery.nearest(vectors[:30], 3)
    assert found.positions[:, 0].tolist() == list(range(30))
    units = gallery.units.numpy()
    np.testing.assert_allclose((units[:30, None] * units[found.positions]).sum(-1), found.similarities, atol=1e-5)


def test_the_own_group_and_oneself_are_no_neighbours() -> None:
    vectors = np.random.default_rng(0).standard_normal((300, 4)).astype(np.float32)
    groups = np.arange(300) // 3
    gallery = Gallery(vectors)
    others = gallery.nearest(vectors, 5, groups=(groups, groups)).positions
    assert (groups[others] != groups[:, None]).all()
    assert (gallery.nearest(vectors, 5, own=True).positions != np.arange(300)[:, None]).all()
    # Where there are not enough of other groups, positions are -1.
    few = Gallery(vectors[:4]).nearest(vectors[:1], 4, groups=(groups[:1], groups[:4]))
    assert few.positions[0].tolist() == [3, -1, -1, -1]
    assert np.isneginf(few.similarities[0, 1:]).all()
