"""The folds stage on two sources."""

import json

import pandas as pd
import pytest

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.core.labels import target_matrix
from pipeline.data.fold_table import read_folds
from pipeline.sources.packed_array import read_index
from pipeline.stages import folds
from tests.fixtures.competition import TRAIN


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
