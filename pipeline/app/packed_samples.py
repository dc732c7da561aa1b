"""The packed images of a run: examples to try, pictures of training samples, and what their brightness is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.app.uploads import Sample
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.core.progress import say
from pipeline.sources.images import Image
from pipeline.sources.packed_array import open_images, read_index

EXAMPLES = 6
"""How many samples can be tried without an upload."""


@dataclass(frozen=True)
class PackedSamples:
    """The packed samples of a run's sources.

    Attributes:
        index: a row per sample by its id, with the columns of the index and ``source``.
        images: the array of each source.
        examples: ids of samples to try: of the test set, or of the training set if there is none.
    """

    index: pd.DataFrame
    images: dict[str, npt.NDArray[np.uint8]]
    examples: tuple[str, ...]

    @property
    def tested(self) -> bool:
        """Whether the examples are of the test set."""
        return bool((self.index["split"] == "test").any())

    @property
    def training(self) -> pd.DataFrame:
        """The rows of the training samples."""
        return self.index[self.index["split"] == "train"]

    def image(self, id_: str) -> Image | None:
        """The image of a sample, (S, S, 4) uint8; None if it is not packed."""
        if id_ not in self.index.index:
            return None
        row = self._row(id_)
        return np.asarray(self.images[str(row["source"])][int(row["row"])])

    def sample(self, id_: str) -> Sample:
        """A packed sample, as if it had been uploaded; its brightness is that of the original files."""
        row = self._row(id_)
        brightness = {
            channel: (float(row[f"mean_{channel}"]), float(row[f"std_{channel}"]), float(row[f"saturated_{channel}"]))
            for channel in CHANNELS
        }
        image = self.image(id_)
        assert image is not None  # for the type checker
        return Sample(id_, image, CHANNELS, int(row["height"]), brightness)

    def _row(self, id_: str) -> dict[str, Any]:
        return dict(self.index.loc[id_])


def open_packed(sources: Sequence[str]) -> PackedSamples | None:
    """Open the packed sources of the run in this folder; None, with a message, if one is not packed."""
    try:
        tables = [read_index(source).assign(source=source) for source in sources]
        images = {source: open_images(source) for source in sources}
    except InputError as error:
        say(f"no examples, no pictures of similar samples, no comparison of exposure: {error}")
        return None
    index = pd.concat(tables, ignore_index=True).drop_duplicates("id").set_index("id", drop=False)
    tested = index.loc[index["split"] == "test", "id"]
    shown = (tested if len(tested) else index["id"]).tolist()
    places = np.linspace(0, len(shown) - 1, min(EXAMPLES, len(shown))).astype(int)
    return PackedSamples(index, images, tuple(shown[place] for place in places))
