"""Duplicates: all of them found without comparing all pairs, and none that would glue strangers together."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.data.duplicates import FEW, antibody_pairs, check_chains, find_duplicates, join_groups, near_pairs
from pipeline.data.fold_assignment import UNASSIGNED, check_leaks, duplicates_audit
from pipeline.data.fold_table import read_folds
from pipeline.stages import folds
from tests.fixtures.competition import COMMITTED, write_index

Hashes = npt.NDArray[np.uint8]


def random_hashes(seed: int, samples: int) -> Hashes:
    return np.random.default_rng(seed).integers(0, 256, (samples, 32), dtype=np.uint8)


def flipped(hashes: Hashes, bits: int, seed: int) -> Hashes:
    """The same hashes, each with ``bits`` bits at random places turned."""
    places = np.random.default_rng(seed).random((len(hashes), 256)).argsort(axis=1) < bits
    return hashes ^ np.packbits(places, axis=1)


def compared_one_by_one(hashes: Hashes, bits: int) -> list[tuple[int, int]]:
    unpacked = np.unpackbits(hashes, axis=1)
    distances = (unpacked[:, None] != unpacked[None]).sum(axis=2)
    return [(a, b) for a in range(len(hashes)) for b in range(a + 1, len(hashes)) if distances[a, b] <= bits]


def sample_table(hashes: list[str], targets: list[str], files: list[str] | None = None) -> pd.DataFrame:
    table = pd.DataFrame({"id": [f"s{i}" for i in range(len(hashes))], "source": "one", "target": targets})
    table["split"] = ["train" if target else "test" for target in targets]
    table["phash"] = hashes
    for channel in CHANNELS:
        table[f"digest_{channel}"] = files or table["id"]
    return table


def text(hashes: Hashes) -> list[str]:
    return [row.tobytes().hex() for row in hashes]


@given(seed=st.integers(0, 2**32 - 1), samples=st.integers(0, 40), bits=st.integers(0, 31))
@settings(max_examples=30, deadline=None)
def test_near_pairs_are_those_found_one_by_one(seed: int, samples: int, bits: int) -> None:
    hashes = random_hashes(seed, samples)
    # Copies of copies, from equal ones to some just beyond what may differ.
    for i in range(1, samples):
        if i % 3:
            hashes[i] = flipped(hashes[i - 1 : i], (seed + i) % (bits + 3), seed + i)[0]
    pairs, distances = near_pairs(hashes, bits)
    assert [tuple(pair) for pair in pairs.tolist()] == compared_one_by_one(hashes, bits)
    unpacked = np.unpackbits(hashes, axis=1)
    assert distances.tolist() == [int((unpacked[a] != unpacked[b]).sum()) for a, b in pairs]


def test_nearly_all_pairs_are_found_up_to_the_default_difference() -> None:
    hashes = random_hashes(0, 2000)
    found = [len(near_pairs(np.vstack([hashes, flipped(hashes, bits, 1)]), 48)[0]) for bits in (31, 40, 48)]
    assert found[0] == 2000
    assert found[1] > 1960
    assert found[2] > 1900


def test_the_table_tells_exact_from_near_and_lists_contradictions_first() -> None:
    one, other = random_hashes(0, 2)
    near = flipped(other[None], 20, 0)[0]
    hashes = text(np.array([one, one, other, near, one]))
    table = sample_table(hashes, ["1", "1", "2", "3", ""], files=["x", "x", "y", "z", "x"])
    found = find_duplicates(table, 48)
    assert found[["id_a", "id_b", "kind", "distance", "labels"]].to_numpy().tolist() == [
        ["s2", "s3", "near", 20, "different"],
        ["s0", "s1", "exact", 0, "same"],
        ["s0", "s4", "exact", 0, ""],
    ]
    assert found["split_b"].tolist() == ["train", "train", "test"]


def test_blank_images_match_nothing_not_even_their_own_copies() -> None:
    table = sample_table([""] * 30, ["1"] * 30, files=["x"] * 30)
    assert find_duplicates(table, 48).empty


def test_groups_that_share_a_duplicate_become_one() -> None:
    groups = np.array(["b", "b", "a", "c", "d", "d"])
    joined = join_groups(groups, np.array([[1, 3], [3, 2]]))
    assert joined.tolist() == ["a", "a", "a", "a", "d", "d"]
    assert join_groups(groups, np.empty((0, 2), dtype=np.int64)).tolist() == groups.tolist()


def test_an_antibody_has_two_names() -> None:
    groups = np.array(["HPA010580", "10580", "x", "10580", "CAB000007", "7", "8", "HPA000009", "00009", "\u0661"])
    joined = join_groups(groups, antibody_pairs(groups))
    assert joined.tolist() == ["10580", "10580", "x", "10580", "7", "7", "8", "00009", "00009", "\u0661"]
    assert antibody_pairs(np.array(["HPA000001", "HPA000002"])).shape == (0, 2)


def test_a_threshold_that_glues_strangers_together_is_refused() -> None:
    pairs, _ = near_pairs(random_hashes(0, 3000), 120)
    with pytest.raises(InputError, match=r"folds\.near_duplicates: with 120 bits, [\d,]+ of 3,000 samples"):
        check_chains(pairs, 3000, 120)
    chain = np.column_stack([np.arange(FEW - 1), np.arange(1, FEW)])
    check_chains(chain, 300, 48)


def test_a_duplicate_in_another_fold_is_a_leak() -> None:
    table = find_duplicates(sample_table(text(random_hashes(0, 2)) * 2, ["1", "2", "3", ""]), 0)
    audit = duplicates_audit(table, np.array([[0, 2], [1, 3]]), np.array([0, 0, 1, UNASSIGNED]))
    assert audit["held_out_share_with_duplicate_in_training"] == pytest.approx(2 / 3)
    assert audit["duplicates"] == {"exact": 0, "near": 2, "training_and_test": 1, "different_labels": 1}
    with pytest.raises(RuntimeError, match=r"66\.67% of the held-out samples have their duplicate in training"):
        check_leaks(audit | {"held_out_share_with_group_in_training": 0.0})


def test_the_stage_keeps_duplicates_in_one_fold_also_by_way_of_a_test_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(COMMITTED.replace("sources: [sample]", "sources: [one, two]"))
    for source, seed in (("one", 0), ("two", 1)):
        write_index(source, 60, 5, seed)
    hashes = random_hashes(0, 130)
    hashes[65 + 50] = flipped(hashes[62:63], 30, 0)[0]  # two: a training sample like a test sample of one,
    hashes[55] = flipped(hashes[62:63], 30, 1)[0]  # and a training sample of one like it as well, from the other side
    for number, source in enumerate(("one", "two")):
        path = paths.packed_index(source)
        index = pd.read_csv(path, keep_default_na=False, dtype=str)
        index["phash"] = text(hashes[65 * number : 65 * (number + 1)])
        for channel in CHANNELS:
            index[f"digest_{channel}"] = index["id"]
        index.to_csv(path, index=False)
    folds.main()
    table = read_folds()
    pair = table[
        ((table["source"] == "one") & (table["row"] == 55)) | ((table["source"] == "two") & (table["row"] == 50))
    ]
    assert len(pair) == 2
    assert pair["fold"].nunique() == pair["group"].nunique() == 1
    listed = pd.read_csv(paths.DUPLICATES)
    assert len(listed) == 2
    assert json.loads(paths.FOLDS_AUDIT.read_text())["duplicates"]["training_and_test"] == 2
    assert (
        "2 pairs of samples show the same field of view (2 of a training and a test sample" in capsys.readouterr().out
    )
