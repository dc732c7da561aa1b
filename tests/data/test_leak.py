"""Test samples that a further source shows too: all copies of them, and no others."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.data.duplicates import COLUMNS as PAIR_COLUMNS
from pipeline.data.duplicates import find_duplicates
from pipeline.data.leak import COLUMNS, find_leak, read_duplicates

SOURCES = [("kaggle", "test"), ("kaggle", "train"), ("atlas", "train"), ("atlas", "test"), ("mine", "train")]


def samples_of(kinds: list[int], fields: list[int], changed: list[int]) -> pd.DataFrame:
    """Samples of a few fields of view, whose hashes differ in 128 bits; a changed one differs in 3 more bits."""
    hashes = []
    for field, change in zip(fields, changed, strict=True):
        bits = np.zeros(256, dtype=np.uint8)
        bits[64 * field : 64 * field + 64] = 1
        bits[250 : 250 + change] ^= 1
        hashes.append(np.packbits(bits).tobytes().hex())
    table = pd.DataFrame({"id": [f"s{row}" for row in range(len(kinds))], "phash": hashes})
    table["source"] = [SOURCES[kind][0] for kind in kinds]
    table["split"] = [SOURCES[kind][1] for kind in kinds]
    table["target"] = [str(row % 28) if split == "train" else "" for row, split in enumerate(table["split"])]
    for channel in CHANNELS:
        table[f"digest_{channel}"] = [f"{field} {change}" for field, change in zip(fields, changed, strict=True)]
    return table


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.sampled_from([0, 3])), min_size=1, max_size=14))
def test_the_list_is_that_of_all_pairs_compared_one_by_one(drawn: list[tuple[int, int, int]]) -> None:
    kinds, fields, changed = (list(column) for column in zip(*drawn, strict=True))
    found = find_leak(find_duplicates(samples_of(kinds, fields, changed), bits=5), "kaggle")
    expected = {
        (f"s{test}", SOURCES[kinds[other]][0], f"s{other}", str(other % 28), abs(changed[test] - changed[other]))
        for test in range(len(drawn))
        for other in range(len(drawn))
        if SOURCES[kinds[test]] == ("kaggle", "test")
        and SOURCES[kinds[other]] in (("atlas", "train"), ("mine", "train"))
        and fields[test] == fields[other]
    }
    assert list(found.columns) == COLUMNS
    assert len(found) == len(expected)
    assert set(found.itertuples(index=False, name=None)) == expected
    order = list(zip(found["test_id"], found["distance"], strict=True))
    assert order == sorted(order)


def test_pairs_are_read_as_they_were_written(tmp_path: Path) -> None:
    pairs = find_duplicates(samples_of([0, 2, 4], [1, 1, 1], [0, 0, 3]), bits=5)
    path = tmp_path / "duplicates.csv"
    pairs.to_csv(path, index=False)
    pd.testing.assert_frame_equal(read_duplicates(path), pairs, check_dtype=False)
    pairs.iloc[:0].to_csv(path, index=False)
    assert find_leak(read_duplicates(path), "kaggle").empty


@pytest.mark.parametrize("text", ["", "id_a,id_b\n", ",".join(PAIR_COLUMNS) + "\n" + "," * 9 + "x,\n"])
def test_a_damaged_file_is_named_with_the_stage_that_makes_it(text: str, tmp_path: Path) -> None:
    path = tmp_path / "duplicates.csv"
    with pytest.raises(InputError, match=r"duplicates\.csv is missing: run the folds stage again"):
        read_duplicates(path)
    path.write_text(text)
    with pytest.raises(InputError, match=r"duplicates\.csv is damaged .*: run the folds stage again"):
        read_duplicates(path)
