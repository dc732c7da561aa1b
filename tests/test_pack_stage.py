"""The stage ``pack`` as it is run: its files, its exit codes, and what it leaves behind when it fails."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.atlas.archive import Archive
from pipeline.atlas.pack import pack
from pipeline.atlas.packed import IMAGES, open_images, read_index
from pipeline.atlas.problems import Problem
from pipeline.errors import run_stage
from pipeline.stages import pack as stage
from tests.archives import TEST, TRAIN, competition, field, write_zip

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder to work in, with a good source named tiny."""
    settings = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(settings.replace("sources: [sample]", "sources: [tiny, bad, kaggle]"))
    write_zip(tmp_path / "data/tiny/competition.zip", competition() | {"train/.DS_Store": b""})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pack", "--source", "tiny"])
    return tmp_path


def run(source: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.stages.pack", "--source", source]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)})


def test_a_good_source_is_packed_and_its_truth_never_opened(project: Path) -> None:
    (project / "data/tiny/test_truth.csv").symlink_to("nowhere")  # fails whoever opens it
    result = run("tiny")
    assert result.returncode == 0, result.stderr
    assert "left alone what no table lists: 'competition.zip/train/.DS_Store', 1 files in all" in result.stderr
    folder = project / "data/packed/tiny"
    assert sorted(path.name for path in folder.iterdir()) == ["contact-sheet.png", "images.npy", "index.csv"]
    assert read_index("tiny")["id"].tolist() == [*TRAIN, *TEST]
    pixels = open_images("tiny")
    assert pixels.shape == (7, 512, 512, 4)
    # Enlarged, so no pixel for pixel comparison.
    assert np.abs(pixels.mean(axis=(1, 2)) - [field(id_).mean(axis=(0, 1)) for id_ in (*TRAIN, *TEST)]).max() < 3


def test_a_bad_source_ends_in_one_message_and_leaves_nothing(project: Path) -> None:
    files = competition() | {"train/a1_red.png": b"junk"}
    del files["test/t3_green.png"]
    write_zip(project / "data/bad/competition.zip", files)
    result = run("bad")
    assert result.returncode == 1
    assert "error: data/bad: 2 problems; nothing was packed" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list((project / "data/packed").iterdir())


def failure(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        run_stage(stage.main)
    assert "Traceback" not in capsys.readouterr().err
    return str(caught.value.code)


def test_a_full_disk_ends_cleanly_and_the_former_array_stays(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stage(stage.main)
    before = (project / "data/packed/tiny/index.csv").read_bytes()

    def pack_on_a_full_disk(
        archive: Archive, samples: pd.DataFrame, size: int, folder: Path, *rest: list[Problem]
    ) -> None:
        (folder / IMAGES).symlink_to("/dev/full")
        pack(archive, samples, size, folder, *rest)

    monkeypatch.setattr(stage, "pack", pack_on_a_full_disk)
    assert "No space left on device" in failure(capsys)
    assert [path.name for path in (project / "data/packed").iterdir()] == ["tiny"]
    assert (project / "data/packed/tiny/index.csv").read_bytes() == before


def test_an_interruption_leaves_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "contact_sheet", interrupted)
    assert failure(capsys) == "130"
    assert not list((project / "data/packed").iterdir())


def test_a_missing_source_is_asked_for(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["pack", "--source", "kaggle"])
    assert failure(capsys).startswith("error: data/kaggle is missing: make this folder")
    assert not (project / "data/kaggle").exists()
