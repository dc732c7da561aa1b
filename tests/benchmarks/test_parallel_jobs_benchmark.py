"""Jobs that are trained in parallel have the same bytes as those of `dvc repro`, and leave nothing stale."""

from pathlib import Path

import pytest

from benchmarks.interrupt import OUTPUTS
from benchmarks.parallel_jobs import PARALLEL, SERIAL, prepare, run_jobs, stale_stages

pytest.importorskip("ray", reason="requirements-cluster.txt is not installed")


@pytest.mark.slow
def test_the_bytes_are_those_of_dvc_repro(tmp_path: Path) -> None:
    prepared = prepare(tmp_path / "prepared", epochs=2, tiny=True)
    assert stale_stages(prepared) == 4
    _, serial = run_jobs(prepared, tmp_path / "serial", *SERIAL, threads=1)
    _, parallel = run_jobs(prepared, tmp_path / "parallel", *PARALLEL)
    assert {name.split("/")[0] for name in serial} == {"models", "predictions"} < set(OUTPUTS)
    assert parallel == serial
    assert stale_stages(tmp_path / "parallel") == 0
