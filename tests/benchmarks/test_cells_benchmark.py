"""Real cells side by side make the bytes of `dvc repro`, and leave it nothing to do."""

import pytest

from benchmarks.cells import main

pytest.importorskip("ray", reason="requirements-cluster.txt is not installed")


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_the_bytes_are_those_of_dvc_repro() -> None:
    figures = main()
    assert figures["different_files"] == 0
    assert figures["rerun_stages"] == 0
