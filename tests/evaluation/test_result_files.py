"""The blend and the attention maps come back from their files as they were."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.evaluation import result_files
from pipeline.evaluation.result_files import AttentionMaps, Blend
from tests.evaluation.test_prediction_files import some_predictions


def test_a_blend_comes_back_as_it_was(tmp_path: Path) -> None:
    probabilities = some_predictions().held_out
    Blend(np.array(["a", "b", "c"]), probabilities, probabilities, probabilities > 0.5).save(tmp_path / "blend.npz")
    found = result_files.load_blend(tmp_path / "blend.npz")
    assert found.ids.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(found.probabilities, probabilities)
    np.testing.assert_array_equal(found.decisions, probabilities > 0.5)


def test_maps_come_back_as_they_were_and_unfit_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = AttentionMaps(
        np.array(["a", "b", "a"]),
        np.array([0, 0, 7]),
        np.array(["gradient", "CBAM"]),
        np.random.default_rng(0).integers(0, 256, (3, 2, 4, 5), dtype=np.uint8),
    )
    drawn.save("one")
    for name in result_files.MAP_KINDS:
        np.testing.assert_array_equal(getattr(result_files.load_maps("one"), name), getattr(drawn, name))
    AttentionMaps(drawn.ids[:2], drawn.labels, drawn.names, drawn.maps).save("two")
    with pytest.raises(InputError, match=r"two\.npz: 2 ids, but maps of shape \(3, 2, 4, 5\): run the explain stage"):
        result_files.load_maps("two")
    assert paths.maps("one").exists()
