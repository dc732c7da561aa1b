"""The maps of all labels at once are those that `predict --maps` draws one at a time."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.core import params, paths
from pipeline.inference.maps_of_image import maps_of_image
from pipeline.inference.trained_models import find_models, load_models, mean_attention_maps
from pipeline.sources.packed_array import open_images
from tests.fixtures.exports import MODELS, write_exportable_run
from tests.fixtures.models import CLASSICAL, FROZEN

LABELS = [3, 0, 27]


KINDS: dict[str, params.Model] = {**MODELS, "forest": CLASSICAL, "kernel": FROZEN}


@pytest.mark.parametrize("name", KINDS)
def test_they_are_the_maps_of_copies_of_the_image(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_exportable_run({name: KINDS[name]}, blend="probabilities")
    models = load_models(find_models(paths.model(name, 0).parent), 48)
    image = np.array(open_images("sample")[95])
    expected = mean_attention_maps(models, np.repeat(image[None], len(LABELS), axis=0), LABELS)
    found = maps_of_image(models, image, LABELS)
    np.testing.assert_allclose(found.astype(int), expected.astype(int), atol=1)
    assert len({one.tobytes() for one in found}) == len(LABELS)
