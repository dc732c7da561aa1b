"""A damaged table of folds is refused."""

from pathlib import Path

import pytest

from pipeline.core.errors import InputError
from pipeline.data.fold_table import read_folds


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "missing"),
        ("id,source,row,target,group\n", "damaged"),
        ("id,source,row,target,group,fold\na,s,0,1,g,x\n", "damaged"),
        ("", "damaged"),
    ],
)
def test_damaged_folds_are_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "folds.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=rf"folds\.csv is {message}.*folds stage"):
        read_folds(path)
