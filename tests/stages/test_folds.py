"""The folds stage on two sources, small ones and the real label rows of the competition and the atlas."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS, target_matrix
from pipeline.data.fold_table import read_folds
from pipeline.data.leak import find_leak, read_duplicates
from pipeline.sources.packed_array import COLUMNS, read_index
from pipeline.stages import folds
from tests.fixtures.competition import COMMITTED, TRAIN

REAL = Path("../shared/hpa/labels").resolve()


@pytest.mark.usefixtures("finished_run")
def test_folds_hold_the_training_samples_of_all_sources() -> None:
    table = read_folds()
    for source, train in (("one", TRAIN), ("two", 30)):
        index = read_index(source)
        ours = table[table["source"] == source]
        assert ours["id"].tolist() == index["id"][:train].tolist()
        assert ours["row"].tolist() == list(range(train))
        assert ours["target"].tolist() == index["target"][:train].tolist()
    unknown = ~table["group"].str.startswith("HPA")
    assert unknown.sum() == (TRAIN - TRAIN // 2) + 15
    assert (table["group"] == table["id"])[unknown].all()
    assert (table.groupby("group")["fold"].nunique() == 1).all()
    audit = json.loads(paths.FOLDS_AUDIT.read_text())
    assert audit["held_out_share_with_group_in_training"] == 0
    assert audit["held_out_share_with_duplicate_in_training"] == 0
    assert sum(audit["labels"]["Nucleoplasm"]["positives"]) == target_matrix(table["target"])[:, 0].sum()


@pytest.mark.usefixtures("finished_run")
def test_scarce_labels_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    folds.main()
    printed = capsys.readouterr().out
    assert "22 of the 28 labels have no training sample" in printed
    assert "too few groups for 3 folds" not in printed
    index = pd.read_csv(paths.packed_index("two"), dtype=str, keep_default_na=False)
    index.loc[:1, "target"] = "27"
    index.to_csv(paths.packed_index("two"), index=False)
    folds.main()
    printed = capsys.readouterr().out
    assert "21 of the 28 labels have no training sample" in printed
    assert "too few groups for 3 folds, so F1 is 0 in some fold: Rods & rings (1)\n" in printed


@pytest.mark.usefixtures("finished_run")
def test_an_id_in_two_sources_is_refused() -> None:
    index = pd.read_csv(paths.packed_index("two"), dtype=str, keep_default_na=False)
    index.loc[0, "id"] = read_index("one")["id"].iloc[0]
    index.to_csv(paths.packed_index("two"), index=False)
    with pytest.raises(InputError, match=r"data\.sources: 1 ids .* more than one source, such as one-000:"):
        folds.main()


def write_real_index(source: str, tables: dict[str, pd.DataFrame], hashes: np.ndarray, groups: pd.Series) -> None:
    """The index of a source as ``pack`` writes it, with hashes in place of pictures."""
    rows = pd.concat([table.assign(split=split) for split, table in tables.items()], ignore_index=True)
    index = pd.DataFrame("0", index=rows.index, columns=list(COLUMNS))
    index["row"], index["id"], index["split"] = rows.index, rows["Id"], rows["split"]
    index["target"] = rows["Target"].map(lambda text: " ".join(sorted(text.split(), key=int)))
    index["group"] = groups.to_numpy()
    index["phash"] = [row.tobytes().hex() for row in hashes]
    for channel in CHANNELS:
        index[f"digest_{channel}"] = rows["Id"]
    paths.packed_index(source).parent.mkdir(parents=True, exist_ok=True)
    index.to_csv(paths.packed_index(source), index=False)


@pytest.mark.skipif(not REAL.exists(), reason="no real labels here")
def test_one_antibody_or_one_picture_in_two_real_sources_is_one_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All 42,774 and 74,606 rows; the hashes are simulated: random, some of them copies with 20 bits turned."""
    train, external = (pd.read_csv(REAL / name, dtype=str) for name in ("train.csv", "HPAv18RBGY_wodpl.csv"))
    test = pd.read_csv(REAL / "sample_submission.csv", dtype=str).assign(Target="")
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(COMMITTED.replace("sources: [sample]", "sources: [kaggle, atlas]"))
    random = np.random.default_rng(0)
    own = random.integers(0, 256, (len(train) + len(test), 32), dtype=np.uint8)
    atlas = random.integers(0, 256, (len(external), 32), dtype=np.uint8)
    # Pictures that stand in both: 2,000 training and 1,000 test samples of the competition.
    copied = random.choice(len(external), 3000, replace=False)
    originals = np.concatenate([random.choice(len(train), 2000, replace=False), len(train) + np.arange(0, 10000, 10)])
    turned = np.packbits(random.random((3000, 256)).argsort(axis=1) < 20, axis=1)
    atlas[copied] = own[originals] ^ turned
    # Antibodies that stand in both, under the two names that an antibody has; of the other samples none is known.
    antibodies = external["Id"].str.split("_").str[0]
    known = random.choice(len(train), 500, replace=False)
    shared = antibodies.drop_duplicates().sample(500, random_state=0).tolist()
    named = dict(zip(known.tolist(), shared, strict=True))
    groups = pd.Series([f"HPA{int(named[row]):06}" if row in named else "" for row in range(len(own))])
    write_real_index("kaggle", {"train": train, "test": test}, own, groups)
    write_real_index("atlas", {"train": external}, atlas, antibodies)

    folds.main()
    printed = capsys.readouterr().out
    assert "3,000 pairs of samples show the same field of view (1,000 of a training and a test sample" in printed
    table = read_folds()
    assert len(table) == len(train) + len(external)
    table = table.set_index("id")
    assert (table.groupby("group")["fold"].nunique() == 1).all()
    for column in ("group", "fold"):
        of_copy = table.loc[external["Id"].iloc[copied[:2000]], column].to_numpy()
        assert (of_copy == table.loc[train["Id"].iloc[originals[:2000]], column].to_numpy()).all()
        by_antibody = table.loc[external["Id"], column].groupby(antibodies.to_numpy()).agg(["first", "nunique"])
        assert (by_antibody["nunique"] == 1).all()
        assert (table.loc[train["Id"].iloc[known], column].to_numpy() == by_antibody.loc[shared, "first"]).all()
    # No more is joined than that: components by union-find over the same names and pairs.
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    ids = [*train["Id"], *test["Id"]]
    number = {ids[row]: str(int(name)) for row, name in zip(known, shared, strict=True)}
    for id_ in ids:
        root(number.get(id_, id_))
    for name in antibodies.unique():
        root(name)
    for row, copy in zip(originals, copied, strict=True):
        parent[root(number.get(ids[row], ids[row]))] = root(antibodies.iloc[copy])
    expected_names = [*(number.get(id_, id_) for id_ in train["Id"]), *antibodies]
    assert table["group"].nunique() == len({root(name) for name in expected_names})

    leak = find_leak(read_duplicates(), "kaggle")
    expected = dict(zip((ids[row] for row in originals[2000:]), external["Id"].iloc[copied[2000:]], strict=True))
    assert dict(zip(leak["test_id"], leak["id"], strict=True)) == expected
    targets = external.set_index("Id")["Target"][leak["id"]]
    np.testing.assert_array_equal(target_matrix(leak["target"]), target_matrix(targets))
    assert (leak["distance"] == 20).all()
