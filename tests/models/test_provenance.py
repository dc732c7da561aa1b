"""Weight files record what the weights have seen, and a sample is recognised under another id or in another source."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.models import checkpoint
from pipeline.models.network import Network
from pipeline.models.provenance import BYTES, FILES, Provenance
from pipeline.sources.archive import open_archive
from pipeline.sources.images import encode_png
from pipeline.sources.packed_array import COLUMNS
from pipeline.sources.packing import INDEX, pack
from tests.fixtures.archives import field, png, write_files
from tests.fixtures.models import TINY

SIDE = 48


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_index(source: str, samples: Sequence[tuple[str, str, str]]) -> pd.DataFrame:
    """An index of samples with these ids, contents of the files, and perceptual hashes; the table of all its rows."""
    index = pd.DataFrame({name: [0] * len(samples) for name in COLUMNS})
    index["row"] = range(len(samples))
    index["id"], content, index["phash"] = zip(*samples, strict=True)
    for column in FILES:
        index[column] = content
    paths.packed_index(source).parent.mkdir(parents=True, exist_ok=True)
    index.to_csv(paths.packed_index(source), index=False)
    return index[["id", "row"]].assign(source=source)


def numbered(source: str, first: int, count: int) -> pd.DataFrame:
    """Samples that differ in everything."""
    return write_index(source, [(f"id-{i:05}", f"{i:016x}", f"{i:064x}") for i in range(first, first + count)])


def test_images_seen_without_their_labels_are_recorded_and_are_not_refused() -> None:
    labelled, others = numbered("one", 0, 3), numbered("two", 10, 2)
    seen, images = Provenance.of_samples(labelled), Provenance.of_samples(others).without_labels()
    assert images.seen_among(others) == []
    assert images.unlabelled == Provenance.of_samples(others).digests
    both = images.union(seen)
    assert both.seen_among(pd.concat([labelled, others])) == labelled["id"].tolist()
    assert Provenance.from_json(both.to_json(), "file") == both
    assert "unlabelled" not in seen.to_json(), "files of weights that labels alone have trained stay what they were"
    with pytest.raises(InputError, match="record of the samples that it has seen is damaged"):
        Provenance.from_json(both.to_json() | {"unlabelled": "AAAA"}, "file")


@pytest.mark.parametrize(
    ("sample", "recognised"),
    [
        (("a", "files of a", "hash of a"), True),
        (("a", "other files", "other hash"), True),
        (("b", "files of a", "other hash"), True),
        (("b", "other files", "hash of a"), True),
        (("b", "other files", "other hash"), False),
        (("files of a", "hash of a", "a"), False),  # each kind of digest is compared with its own kind only
        (("b", "files of black", ""), False),
        (("black", "other files", ""), True),
    ],
)
def test_a_sample_is_recognised_by_id_files_or_pixels(sample: tuple[str, str, str], recognised: bool) -> None:
    seen = Provenance.of_samples(
        write_index("old", [("a", "files of a", "hash of a"), ("black", "files of black", "")])
    )
    assert seen.seen_among(write_index("new", [sample])) == [sample[0]] * recognised


def test_the_same_pixels_are_recognised_under_another_id_and_in_other_files() -> None:
    def packed(source: str, names: dict[str, str], encode: Any) -> pd.DataFrame:
        """Pack the fields that are drawn by these names; the table of all samples."""
        files = {
            f"{id_}_{channel}.png": encode(field(name, SIDE)[..., position])
            for id_, name in names.items()
            for position, channel in enumerate(CHANNELS)
        }
        write_files(Path(source), files)
        paths.packed_index(source).parent.mkdir(parents=True, exist_ok=True)
        samples = pd.DataFrame({"id": list(names), "files": list(names), "split": "train", "target": "0", "group": ""})
        with open_archive(Path(source)) as archive:
            index = pack(archive, samples, SIDE, Path(source))
        (Path(source) / INDEX).rename(paths.packed_index(source))
        return index[["id", "row"]].assign(source=source)

    old = packed("old", {"a": "first", "b": "second"}, png)
    seen = Provenance.of_samples(old)
    new = packed("new", {"x": "third", "y": "second", "z": "fourth"}, encode_png)
    assert seen.seen_among(new) == ["y"]
    files = [pd.read_csv(paths.packed_index(source))[FILES].iloc[1].tolist() for source in ("old", "new")]
    assert files[0] != files[1], "the encoders gave the same files, so this test does not test pixels"


def test_only_the_samples_of_the_table_are_recorded() -> None:
    table = numbered("one", 0, 40)
    seen = Provenance.of_samples(table[::3])
    assert seen.seen_among(table) == table["id"][::3].tolist()
    mixed = pd.concat([numbered("two", 40, 40), table]).sample(frac=1, random_state=0)
    assert Provenance.of_samples(mixed[:30]).seen_among(mixed[20:]) == sorted(mixed["id"][20:30])


def test_a_union_recognises_the_samples_of_both_and_is_complete_if_both_are() -> None:
    one, two = numbered("one", 0, 10), numbered("two", 5, 10)
    union = Provenance.of_samples(one).union(Provenance.of_samples(two))
    assert union.seen_among(numbered("all", 0, 20)) == [f"id-{i:05}" for i in range(15)]
    assert union.complete
    assert not union.union(Provenance(complete=False)).complete
    assert not Provenance(complete=False).union(union).complete


@pytest.mark.parametrize("complete", [True, False])
def test_a_weight_file_records_what_its_weights_have_seen(complete: bool) -> None:
    seen = Provenance(Provenance.of_samples(numbered("one", 0, 50)).digests, complete)
    path = Path("own.safetensors")
    checkpoint.save(path, Network(TINY), TINY, seen)
    weights, description = checkpoint.read(path)
    assert Provenance.from_json(description["seen"], str(path)) == seen
    assert weights.keys() == Network(TINY).state_dict().keys(), "the record is not one of the weights"
    checkpoint.load(path)


def test_a_record_takes_24_characters_per_sample() -> None:
    record = Provenance.of_samples(numbered("one", 0, 1000)).to_json()
    assert len(record["digests"]) == 24 * 1000


def test_a_file_without_a_record_is_incomplete() -> None:
    assert Provenance.from_json(None, "own.safetensors") == Provenance(complete=False)


@pytest.mark.parametrize(
    "record",
    [
        {},
        [],
        "text",
        {"digests": "AAAAAAAA"},
        {"digests": "AAAAAAAA", "complete": "yes"},
        {"digests": 5, "complete": True},
        {"digests": "AAAA,AAA", "complete": True},
        {"digests": base64.b64encode(bytes(BYTES + 1)).decode(), "complete": True},
    ],
)
def test_a_damaged_record_is_refused(record: Any) -> None:
    with pytest.raises(InputError, match=r"own\.safetensors: its record of the samples that it has seen is damaged"):
        Provenance.from_json(record, "own.safetensors")
