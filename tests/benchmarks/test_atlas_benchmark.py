"""The benchmark of fetching at a small size: killed runs end with the same bytes, and nothing is fetched twice."""

import zipfile
from pathlib import Path

from benchmarks.atlas import Atlas, badly, run, stored

REAL = Path("../shared/hpa/atlas_jpg")


def test_killed_runs_end_with_the_same_bytes() -> None:
    atlas = Atlas(REAL if REAL.exists() else None, 30, side=64, fields=2)
    assert len(set(atlas.ids)) == 30
    figures = run(atlas, 32, 3, ["--rate", "200", "--pause", "0.01"], 4, seed=1)
    assert figures["kills"] == 3
    assert figures["different_bytes"] == figures["fetched_again"] == 0
    assert figures["most_connections"] <= figures["allowed"] == 4
    assert figures["requests_disturbed"] > figures["requests"]


def test_no_two_samples_are_alike_and_some_files_are_missing() -> None:
    atlas = Atlas(None, 400, side=64, fields=2)
    files = [atlas.file(f"/{id_.replace('_', '/', 1)}_green.jpg") for id_ in atlas.ids]
    assert len(set(files)) > 390
    assert None in files
    manners = {badly(f"/{number}", 1) for number in range(2000)}
    assert manners == {"well", "busy", "error", "dropped", "truncated", "page", "cut", "slow"}
    assert badly("/1", 3) == "well"


def test_what_is_stored_is_found_in_zips_and_waiting(tmp_path: Path) -> None:
    (tmp_path / ".resume").mkdir()
    (tmp_path / ".resume/1_2_A1_3_red.512.png").touch()
    (tmp_path / ".resume/.1_2_A1_3_blue.512.png.partial").touch()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("9_2_A1_3_green.png", b"")
    assert stored(tmp_path) == {"/1/2_A1_3_red.jpg", "/9/2_A1_3_green.jpg"}
