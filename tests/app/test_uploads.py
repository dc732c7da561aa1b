"""Uploads: each sample is found and decoded as `predict` does, and bad files end with one message that names them."""

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np
import pytest

from pipeline.app.uploads import FILES, Part, Sample, decode_sample, missing_stains, read_upload
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from tests.fixtures.archives import field, png
from tests.fixtures.atlas_jpegs import jpeg, plane
from tests.fixtures.prediction import SIDE, files


def zipped(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def parts(members: Mapping[str, bytes]) -> list[Part]:
    return [Part(name, data) for name, data in members.items()]


def decode(sent: list[Part], id_: str | None = None, size: int = SIDE) -> Sample:
    upload = read_upload(sent)
    return decode_sample(upload, id_ or next(iter(upload.samples)), size)


@pytest.mark.parametrize("folder", ["", "plate 7/", "C:\\images\\"])
def test_four_files_are_a_sample_in_any_order_and_folder(folder: str) -> None:
    sent = parts({f"{folder}{name}": data for name, data in reversed(files(["a"]).items())})
    found = decode(sent)
    np.testing.assert_array_equal(found.pixels, field("a", SIDE))
    assert (found.id, found.stains, found.side) == ("a", CHANNELS, SIDE)
    np.testing.assert_allclose(found.brightness["red"][0], field("a", SIDE)[..., 2].mean() / 255)


def test_a_zip_has_the_samples_of_its_files_and_its_strays_are_not_read() -> None:
    strays = {"__MACOSX/._a_green.png": b"x", "images/.DS_Store": b"x", "notes.txt": b"x"}
    upload = read_upload([Part("many.zip", zipped({f"images/{k}": v for k, v in files(["b", "a"]).items()} | strays))])
    assert list(upload.samples) == ["a", "b"]
    assert list(upload.ignored) == ["notes.txt"]
    for id_ in "ab":
        np.testing.assert_array_equal(decode_sample(upload, id_, SIDE).pixels, field(id_, SIDE))


def test_a_form_field_can_say_the_stain_of_a_file_of_any_name() -> None:
    image = field("a", SIDE)
    sent = [Part(f"picture {place}.png", png(image[..., place]), name) for place, name in enumerate(CHANNELS)]
    np.testing.assert_array_equal(decode(sent).pixels, image)


def test_a_composite_shows_three_stains() -> None:
    image = field("a", SIDE)
    rgb = np.ascontiguousarray(image[..., [2, 0, 1]].reshape(SIDE, -1))
    found = decode([Part("photo.PNG", png(rgb, colour=2))])
    np.testing.assert_array_equal(found.pixels[..., :3], image[..., :3])
    assert not found.pixels[..., 3].any()
    assert (found.id, missing_stains(found)) == ("photo", ("yellow",))


def test_jpegs_of_the_atlas_show_a_stain_in_its_colour() -> None:
    found = decode([Part(f"7_{stain}.jpg", jpeg("7", stain)) for stain in CHANNELS])
    for place, stain in enumerate(CHANNELS):
        assert np.abs(found.pixels[..., place].astype(int) - plane(f"7_{stain}")).mean() < 3


def test_images_are_resized_as_packed_ones_are() -> None:
    found = decode(parts(files(["a"])), size=32)
    expected = field("a", SIDE).reshape(32, 2, 32, 2, 4).mean(axis=(1, 3))
    assert np.abs(found.pixels - expected).max() <= 0.5
    assert found.side == SIDE


@pytest.mark.parametrize("lacking", CHANNELS[1:])
def test_reference_stains_may_be_missing(lacking: str) -> None:
    found = decode([part for part in parts(files(["a"])) if lacking not in part.name])
    assert missing_stains(found) == (lacking,)
    assert not found.pixels[..., CHANNELS.index(lacking)].any()


def test_the_protein_may_not_be_missing() -> None:
    with pytest.raises(InputError, match=r"a: the image of the protein, a_green\.png, is missing: add it"):
        decode([part for part in parts(files(["a"])) if "green" not in part.name])


def test_files_that_belong_to_two_samples_are_two_samples() -> None:
    upload = read_upload(parts(files(["a", "b"])))
    assert list(upload.samples) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a_blue.png", b"", r"^a_blue\.png: an empty file: choose it again$"),
        ("a_blue.png", b"Dear reader,", r"^a_blue\.png: neither a PNG, a TIFF nor a JPEG"),
        ("a_blue.png", png(field("a", 32)[..., 1]), r"green 64, blue 32.*channels of different sizes"),
        ("a_blue.png", png(field("a", SIDE)[:, :40, 1]), r"^a_blue\.png: not square"),
        ("a_blue.png", png(field("a", SIDE)[..., 1])[:-30], r"^a_blue\.png: a truncated file"),
        ("a_blue.png", png(np.zeros((SIDE, 3 * SIDE), np.uint8), colour=2), r"^a_blue\.png: a colour PNG"),
        ("a_blue.png", png(np.zeros((5000, 5000), np.uint8), part=10**6), r"^a_blue\.png: larger than 4096 x 4096"),
    ],
)
def test_a_bad_image_is_named(name: str, data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode(parts(files(["a"]) | {name: data}))


def test_all_bad_images_of_a_sample_are_named_together() -> None:
    with pytest.raises(InputError, match=r"a_blue\.png: an empty file.*; a_red\.png: neither a PNG"):
        decode(parts(files(["a"]) | {"a_blue.png": b"", "a_red.png": b"text"}))


def test_a_bad_sample_does_not_hide_a_good_one() -> None:
    upload = read_upload(parts(files(["a", "b"]) | {"a_red.png": b"text"}))
    np.testing.assert_array_equal(decode_sample(upload, "b", SIDE).pixels, field("b", SIDE))


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ([], "no file came"),
        ([Part("notes.txt", b"x")], r"no images found \(notes\.txt\): name the files"),
        ([Part("empty.zip", zipped({}))], r"no images found \(an empty zip\)"),
        ([Part("grey.png", png(field("a", SIDE)[..., 0]))], "a grayscale image instead of an RGB composite"),
        ([Part("text.png", b"Dear reader,")], r"^text\.png: neither a PNG nor a JPEG"),
        ([Part("a_green.png", b"1"), Part("x/a_green.png", b"2")], r"two files for one image \(a_green\.png\)"),
        ([Part("a_green.png", b"1"), Part("a_green.JPG", b"2")], r"\(a_green\.png and a_green\.JPG\): keep one"),
        ([Part("cut.zip", zipped(files(["a"]))[:-40])], r"cut\.zip is not a complete zip"),
        ([Part("text.zip", b"Dear reader,")], r"text\.zip is not a complete zip"),
        (
            [Part("up.zip", zipped({"../a_green.png": b"1"}))],
            r"up\.zip contains an unsafe file name, '\.\./a_green\.png'",
        ),
        ([Part("top.zip", zipped({"/etc/a_green.png": b"1"}))], "unsafe file name"),
        ([Part("two.zip", zipped({"one.zip": zipped({})}))], r"two\.zip: a zip inside it, one\.zip: unpack it"),
        ([Part("all.zip", zipped({}), "green")], "a zip in the place of one stain"),
        ([Part("x.zip", zipped({f"{n}.txt": b"" for n in range(FILES + 1)}))], "more than 1,000 files: send fewer"),
        ([Part(f"{n}.txt", b"") for n in range(FILES + 1)], "more than 1,000 files: send fewer"),
    ],
)
def test_bad_uploads_are_named(sent: list[Part], message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode(sent)


def test_a_name_that_leads_elsewhere_is_a_name_only() -> None:
    sent = [Part(f"../../etc/{name}", data) for name, data in files(["a"]).items()]
    assert list(read_upload(sent).samples) == ["a"]


def test_a_bomb_that_tells_its_size_is_not_unpacked() -> None:
    members = files(["a"]) | {"a_red.png": bytes(33 << 20)}
    with pytest.raises(InputError, match=r"^a_red\.png: unpacks to more than 32 MiB, a possible decompression bomb"):
        decode([Part("bomb.zip", zipped(members))])


def test_a_bomb_that_hides_its_size_is_not_unpacked_further(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(zipped({"a_green.png": bytes(50 << 20)}))
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 1000)  # the size that the directory states
    unpacked: list[int] = []
    real = zlib.decompressobj

    class Counting:
        def __init__(self, bits: int) -> None:
            self._real = real(bits)

        def decompress(self, data: bytes, limit: int = 0) -> bytes:
            found = self._real.decompress(data, limit)
            unpacked.append(len(found))
            return found

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

    monkeypatch.setattr(zipfile.zlib, "decompressobj", Counting)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"^a_green\.png: damaged in its zip"):
        decode([Part("bomb.zip", bytes(data))])
    assert 0 < sum(unpacked) < 1 << 20


def test_a_damaged_member_is_named() -> None:
    data = bytearray(zipped(files(["a"]), zipfile.ZIP_STORED))
    data[data.index(b"IDAT") + 20] ^= 255
    with pytest.raises(InputError, match=r"^a_green\.png: damaged in its zip"):
        decode([Part("bad.zip", bytes(data))])


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_without_a_limit_of_memory_are_refused(method: int) -> None:
    with pytest.raises(InputError, match="compressed by a method other than deflate"):
        decode([Part("slow.zip", zipped(files(["a"]), method))])
