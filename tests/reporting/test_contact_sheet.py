"""The contact sheet shows the right samples under the right names, in the right colours."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.core.labels import CHANNELS
from pipeline.reporting.pictures import composite, draw_contact_sheet, examples
from tests.fixtures.archives import field


def index(*targets: str, tests: int = 0) -> pd.DataFrame:
    rows = [("train", target) for target in targets] + [("test", "")] * tests
    return pd.DataFrame(rows, columns=["split", "target"]).assign(row=range(len(rows)))


def test_each_label_is_shown_by_a_sample_of_its_own_where_there_is_one() -> None:
    shown = examples(index("0 25", "0", "25", "0 7", tests=2))
    assert shown == [
        (1, "Nucleoplasm (3)"),
        (3, "Golgi apparatus (1)"),
        (2, "Cytosol (2)"),
        (4, "test sample"),
        (5, "test sample"),
    ]


def test_a_label_without_a_sample_of_its_own_shares_one() -> None:
    assert [row for row, _ in examples(index("0 25"))] == [0, 0]


def test_the_protein_is_green_the_nucleus_blue_and_the_microtubules_red() -> None:
    for channel, colour in (("green", [0, 255, 0]), ("blue", [0, 0, 255]), ("red", [255, 0, 0]), ("yellow", [0, 0, 0])):
        image = np.zeros((8, 8, 4), np.uint8)
        image[:4, :, CHANNELS.index(channel)] = 40  # faint, to be stretched to full contrast
        shown = composite(image)
        assert shown[0, 0].tolist() == colour
        assert shown[7, 7].tolist() == [0, 0, 0]


def test_the_sheet_is_a_picture_of_all_examples(tmp_path: Path) -> None:
    images = np.stack([field(str(number), 16) for number in range(30)])
    path = tmp_path / "sheet.png"
    draw_contact_sheet(images, index(*map(str, range(28)), tests=2), path)
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet)
    rows = pixels.reshape(4, -1, pixels.shape[1], pixels.shape[2])[..., :3]
    assert (rows.std(axis=(1, 2)) > 50).all()  # noise in each of the four rows of pictures
