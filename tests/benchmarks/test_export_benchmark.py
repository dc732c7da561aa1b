"""The benchmark of the exported package gives the figures that the measurements name, also in 8 bits."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.export import main
from pipeline.commands import export
from pipeline.core import paths
from pipeline.sources.packed_array import read_index
from tests.fixtures.exports import MODELS, write_exportable_run


@pytest.mark.filterwarnings("ignore")  # of the library's quantisation
def test_the_figures_are_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_exportable_run({"pooled": MODELS["pooled"]})
    index = read_index("sample")
    test = index.loc[index["split"] == "test", "id"]
    paths.source("sample").mkdir()
    pd.DataFrame({"Id": test, "Target": "0 3"}).to_csv(paths.source("sample") / "test_truth.csv", index=False)
    export.main(["--fast", "--out", "fast.zip"])
    found = main(Path("fast.zip"), batch=2, rounds=1, eight_bits=True)
    assert found["samples"] == len(test)
    assert found["largest_difference"] < 1e-4
    assert found["other_decisions"] == 0
    assert found["onnx_over_torch"] > 0
    assert found["int8_change_low"] <= found["int8_change"] <= found["int8_change_high"]
