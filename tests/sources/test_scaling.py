"""16-bit values to 8 bits: by the definition, and percentiles that no interruption changes."""

import io
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.core.pack_params import ChannelScaling, Percentile
from pipeline.sources import images, packing, scaling, stored_images
from pipeline.sources.archive import open_archive
from pipeline.sources.packing import IMAGES, pack
from pipeline.sources.samples import list_samples, unlisted
from pipeline.sources.scaling import LEVELS, level_table, percentile
from pipeline.sources.stored_images import SourceFormat
from tests.fixtures.archives import png, table, write_files
from tests.fixtures.tiffs import tiff

SIDE = 12
IDS = [f"s{number}" for number in range(11)]
FIXED = ChannelScaling(green="full", blue=4095, red=1, yellow=300)
BY_PERCENTILE = ChannelScaling(
    green=Percentile(percentile=99.9), blue=4095, red=Percentile(percentile=50), yellow=Percentile(percentile=100)
)
STAINS_OF_12_BITS = SourceFormat(None, BY_PERCENTILE)


def deep_field(id_: str) -> npt.NDArray[np.uint16]:
    """A sample of (SIDE, SIDE, 4) 12-bit values."""
    return np.random.default_rng(IDS.index(id_)).integers(0, 4096, (SIDE, SIDE, 4)).astype(np.uint16)


def deep_png(image: npt.NDArray[np.uint16]) -> bytes:
    return png(image.astype(">u2").view(np.uint8), depth=16)


def source(folder: Path, kind: str = "png") -> Path:
    """A source whose samples are four PNGs or TIFFs, or one TIFF in another order of the channels."""
    files = {"train.csv": table("Id,Target", *(f"{id_},0" for id_ in IDS))}
    for id_ in IDS:
        image = deep_field(id_)
        if kind == "planes":
            files[f"{id_}.OME.TIF" if id_ == "s3" else f"{id_}.tif"] = tiff(image.transpose(2, 0, 1)[::-1], "planes")
            continue
        for number, channel in enumerate(CHANNELS):
            one = image[..., number]
            data = deep_png(one) if kind == "png" else tiff(one[None], "pages", order=">", deflate=True)
            files[f"{id_}_{channel}.{kind}"] = data
    return write_files(folder, files)


def packed(folder: Path, out: Path, form: SourceFormat) -> npt.NDArray[np.uint8]:
    out.mkdir(exist_ok=True)
    one_file = form.planes is not None
    with open_archive(folder) as archive:
        samples, problems = list_samples(archive, one_file=one_file)
        assert unlisted(archive, samples, one_file=one_file) == []
        pack(archive, samples, SIDE, out, problems, form)
    pixels: npt.NDArray[np.uint8] = np.load(out / IMAGES)
    return pixels


def level(value: Any, white: int) -> int:
    """Rounded half up, at most 255."""
    return min(255, int(Fraction(255 * int(value), white) + Fraction(1, 2)))


def by_definition(white: list[int]) -> npt.NDArray[np.uint8]:
    """All samples, each value one by one."""
    values = np.stack([deep_field(id_) for id_ in IDS])
    levels = [[level(value, white[channel]) for value in values[..., channel].flat] for channel in range(4)]
    return np.array(levels, dtype=np.uint8).T.reshape(values.shape)


@given(st.integers(1, LEVELS - 1), st.lists(st.integers(0, LEVELS - 1), min_size=1, max_size=50))
@settings(deadline=None)
def test_a_level_is_the_value_over_white_rounded_half_up(white: int, values: list[int]) -> None:
    found = level_table(white)
    assert found.dtype == np.uint8
    assert found.shape == (LEVELS,)
    for value in (*values, white, white // 2, LEVELS - 1):
        assert found[value] == level(value, white)
    assert found[0] == 0
    assert (np.diff(found.astype(int)) >= 0).all()


@given(
    st.lists(st.integers(0, LEVELS - 1), min_size=1, max_size=300),
    st.floats(0.001, 100).map(lambda share: round(share, 3)),
)
@settings(deadline=None)
def test_a_percentile_is_the_smallest_value_that_enough_values_do_not_exceed(values: list[int], share: float) -> None:
    found = percentile(np.bincount(values, minlength=LEVELS), share)
    assert found in values
    needed = Fraction(str(share)) * len(values) / 100
    assert sum(value <= found for value in values) >= needed
    assert sum(value < found for value in values) < needed
    if share in (50, 100):  # shares that a float has exactly
        assert found == np.percentile(values, share, method="inverted_cdf")


@pytest.mark.parametrize("kind", ["png", "tif", "planes"])
def test_packed_pixels_are_those_of_the_definition(kind: str, tmp_path: Path) -> None:
    form = SourceFormat(("yellow", "red", "blue", "green") if kind == "planes" else None, FIXED)
    pixels = packed(source(tmp_path / "source", kind), tmp_path / "out", form)
    np.testing.assert_array_equal(pixels, by_definition([LEVELS - 1, 4095, 1, 300]))


@pytest.mark.parametrize("kind", ["png", "planes"])
def test_percentiles_are_those_of_all_pixels_of_the_source(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form = SourceFormat(("yellow", "red", "blue", "green") if kind == "planes" else None, BY_PERCENTILE)
    pixels = packed(source(tmp_path / "source", kind), tmp_path / "out", form)
    values = np.stack([deep_field(id_) for id_ in IDS]).reshape(-1, 4)
    shares = {0: 99.9, 2: 50, 3: 100}
    stated = {
        channel: int(np.percentile(values[:, channel], share, method="inverted_cdf"))
        for channel, share in shares.items()
    }
    white = [stated.get(channel, 4095) for channel in range(4)]
    np.testing.assert_array_equal(pixels, by_definition(white))
    listed = f"green {white[0]}, blue 4095, red {white[2]}, yellow {white[3]}"
    assert f"16-bit values that become white: {listed}" in capsys.readouterr().err


def test_an_interrupted_pass_counts_nothing_twice_and_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "CHUNK", 3)
    folder = source(tmp_path / "source")
    expected = packed(folder, tmp_path / "quiet", STAINS_OF_12_BITS)
    counted, interruptions = list[str](), [KeyboardInterrupt()]
    count = stored_images.count_values

    def interrupted(archive: Any, stem: str, form: SourceFormat) -> Any:
        counted.append(stem)
        if stem == "s8" and interruptions:
            raise interruptions.pop()
        return count(archive, stem, form)

    monkeypatch.setattr(packing, "count_values", interrupted)
    with pytest.raises(KeyboardInterrupt):
        packed(folder, tmp_path / "out", STAINS_OF_12_BITS)
    assert {"s0", "s8"} <= set(counted)
    kept = sorted((tmp_path / "out" / scaling.FOLDER).iterdir())
    assert len(kept) == 2
    kept[0].write_bytes(kept[0].read_bytes()[:100])  # as after a power failure
    counted.clear()
    np.testing.assert_array_equal(packed(folder, tmp_path / "out", STAINS_OF_12_BITS), expected)
    assert len(counted) == 3 + 5, "of the four chunks, one of three samples was whole"
    # Another file makes its own chunk stale, and none of the others.
    counted.clear()
    (folder / "s4_red.png").write_bytes(deep_png(np.full((SIDE, SIDE), 9, np.uint16)))
    changed = packed(folder, tmp_path / "out", STAINS_OF_12_BITS)
    assert sorted(counted) == ["s3", "s4", "s5"]
    assert not np.array_equal(changed, expected)


SLOW = """
import sys, time
from pathlib import Path
from pipeline.sources import packing, scaling
from tests.sources import test_scaling as module
scaling.CHUNK = 2
quick = packing.count_values
def slow(*arguments):
    time.sleep(0.05)
    return quick(*arguments)
packing.count_values = slow
module.packed(Path(sys.argv[1]), Path(sys.argv[2]), module.STAINS_OF_12_BITS)
"""


def test_a_killed_pass_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    folder = source(tmp_path / "source")
    expected = packed(folder, tmp_path / "quiet", STAINS_OF_12_BITS)
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(folder), str(out)], env=os.environ | {"PYTHONPATH": "."}
    )
    while process.poll() is None and not list((out / scaling.FOLDER).glob("*.npz")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list((out / scaling.FOLDER).glob("*.npz"))
    np.testing.assert_array_equal(packed(folder, out, STAINS_OF_12_BITS), expected)


def test_rows_of_another_scaling_are_not_used_again(tmp_path: Path) -> None:
    folder = source(tmp_path / "source")
    first = packed(folder, tmp_path / "out", SourceFormat(None, FIXED))
    other = packed(folder, tmp_path / "out", SourceFormat(None, FIXED.model_copy(update={"blue": 2000})))
    assert not np.array_equal(first[..., 1], other[..., 1])
    np.testing.assert_array_equal(first[..., 0], other[..., 0])


def test_a_percentile_of_a_black_channel_is_refused(tmp_path: Path) -> None:
    folder = source(tmp_path / "source")
    for id_ in IDS:
        (folder / f"{id_}_red.png").write_bytes(deep_png(np.zeros((SIDE, SIDE), np.uint16)))
    with pytest.raises(InputError, match=r"pack\.scaling: percentile 50\.0 of the values of red is 0: state a higher"):
        packed(folder, tmp_path / "out", STAINS_OF_12_BITS)


@pytest.mark.parametrize("scaling", [FIXED, BY_PERCENTILE])
def test_all_that_is_wrong_with_a_16_bit_source_is_told_at_once(scaling: ChannelScaling, tmp_path: Path) -> None:
    folder = source(tmp_path / "source")
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(buffer, "JPEG")
    (folder / "s0_green.png").write_bytes(images.encode_png(np.zeros((SIDE, SIDE), np.uint8)))
    (folder / "s1_green.png").rename(folder / "moved.txt")
    (folder / "s2_red.png").write_bytes(buffer.getvalue())
    (folder / "moved.txt").unlink()
    with pytest.raises(InputError) as caught:
        packed(folder, tmp_path / "out", SourceFormat(None, scaling))
    message = str(caught.value)
    assert "3 problems; nothing was written" in message
    for line in (
        "a PNG with 8 bits per pixel instead of 16, though pack.scaling of params.yaml names this source",
        "files are missing",
        "neither a PNG nor a TIFF file (nor is BigTIFF read), though pack.scaling",
    ):
        assert line in message


def test_a_16_bit_image_without_a_scaling_is_refused_with_the_parameter(tmp_path: Path) -> None:
    folder = source(tmp_path / "source", "tif")
    with pytest.raises(InputError, match=r"16 bits per pixel instead of 8: say in pack\.scaling of params\.yaml which"):
        packed(folder, tmp_path / "out", SourceFormat(None, None))


def test_one_file_for_all_channels_is_refused_with_the_parameter(tmp_path: Path) -> None:
    folder = source(tmp_path / "source", "planes")
    message = r"files are missing: if a file such as ID\.tif .* list them in pack\.planes"
    with open_archive(folder) as archive, pytest.raises(InputError, match=message):
        pack(archive, list_samples(archive)[0], SIDE, tmp_path)
    (folder / "s2.tif").unlink()
    with pytest.raises(InputError, match=r"files are missing: add the sample's file.*\n    s2\.tif$"):
        packed(folder, tmp_path, SourceFormat(("yellow", "red", "blue", "green"), FIXED))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 4000), st.integers(1, 255))
def test_a_changed_byte_never_changes_a_16_bit_png_unnoticed(position: int, change: int) -> None:
    image = np.random.default_rng(1).integers(0, LEVELS, (30, 30)).astype(np.uint16)
    data = bytearray(deep_png(image))
    data[position % len(data)] ^= change
    try:
        found = images.decode_deep(bytes(data))
    except InputError:
        return
    np.testing.assert_array_equal(found, image)
