"""``python -m pipeline fetch`` as somebody types it, against servers on this machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.atlas_server import serving
from pipeline import __main__ as door
from pipeline.commands import fetch
from pipeline.core.errors import InputError
from tests.fixtures.archives import competition, write_zip
from tests.fixtures.atlas_jpegs import served
from tests.fixtures.kaggle_server import KaggleServer

ROOT = Path(__file__).parents[2]
LIST = "Id,Target\n" + "".join(f"{row // 4}_{row % 4}_A1_{row},{row % 28}\n" for row in range(40))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("list.csv").write_text(LIST)
    return tmp_path


@pytest.mark.usefixtures("project")
def test_a_list_becomes_a_source_that_only_has_to_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(served, lambda path, _: "missing" if "/3/1_A1_13" in path else "well") as server:
        arguments = ["atlas", "list.csv", "--size", "32", "--source", "more", "--url", server.address, "--rate", "1000"]
        fetch.main(arguments)
    told = capsys.readouterr()
    assert "data/more: 39 of 40 samples at 32 px, and train.csv" in told.out
    assert "1 samples could not be had: logs/fetch-more-missing.csv says why; the same command tries them" in told.out
    assert "next: name more in data.sources of params.yaml" in told.out
    assert "40/40 samples" in told.err
    assert sorted(path.name for path in Path("data/more").iterdir()) == [
        "atlas-32px-0001.zip",
        "groups.csv",
        "train.csv",
    ]
    assert len(pd.read_csv("data/more/train.csv")) == 39


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_command_goes_on_from_there(project: Path, by: signal.Signals) -> None:
    with serving(served, lambda *_: "well") as server:
        arguments = ["fetch", "atlas", "list.csv", "--size", "32", "--url", server.address, "--rate", "150"]
        command = [sys.executable, "-m", "pipeline", *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        started = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        while server.requests.total() < 60 and started.poll() is None:
            time.sleep(0.001)
        started.send_signal(by)
        _, said = started.communicate()
        if by == signal.SIGKILL:
            assert started.returncode == -by
        else:
            assert started.returncode == 128 + by
            assert "what was fetched is kept in data/hpa_v18: the same command goes on from there" in said
            assert "Traceback" not in said
        stored = {
            "/" + path.name.partition(".")[0].replace("_", "/", 1) + ".jpg"
            for path in (project / "data/hpa_v18/.resume").glob("[0-9]*.png")
        }
        assert len(stored) > 40
        before = server.requests.copy()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert "40 of 40 samples" in done.stdout
        assert not stored & {path for path, number in server.requests.items() if number > before[path]}


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["none.csv", "--size", "64"], r"none\.csv is not a file"),
        (["list.csv", "--size", "4"], r"--size 4: give 16 or more"),
        (["list.csv", "--size", "64", "--connections", "0"], r"--connections 0: give 1 or more"),
        (["list.csv", "--size", "64", "--rate", "0"], r"--rate 0: give more than 0 and at most 1000"),
        (["list.csv", "--size", "64", "--pause", "61"], r"--pause 61: give more than 0 and at most 60"),
        (["list.csv", "--size", "64", "--url", "v3"], r"--url v3 is neither one of v18, current nor"),
        (["list.csv", "--size", "64", "--source", "../x"], r"--source \.\./x: name a folder of data/"),
        (["list.csv", "--size", "64", "--source", "aux"], r"--source aux: no name of a folder on all systems"),
        (["list.csv", "--size", "64", "--source", "packed"], r"--source packed: data/packed is the pipeline's own"),
        (["list.csv", "--size", "64", "--source", "sample"], r"--source sample: data/sample is the pipeline's own"),
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_is_asked_for(arguments: list[str], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        fetch.main(["atlas", *arguments])
    assert not Path("data").exists()


@pytest.mark.usefixtures("project")
def test_a_server_that_is_not_there_ends_with_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.fetching.atlas_fetch.AT_FIRST", 3)
    address = "http://127.0.0.1:9/{antibody}/{image}_{stain}.jpg"
    arguments = ["fetch", "atlas", "list.csv", "--size", "32", "--url", address, "--pause", "0.001", "--rate", "1000"]
    monkeypatch.setattr(sys, "argv", ["pipeline", *arguments])
    with pytest.raises(SystemExit) as caught:
        door.main()
    assert "the last 3 files could not be had; http://127.0.0.1:9/" in str(caught.value.code)
    assert "the connection broke (Cannot connect to host 127.0.0.1:9" in str(caught.value.code)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.usefixtures("project")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_competition_becomes_a_source_that_only_has_to_be_named(
    kaggle: KaggleServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    kaggle.archive = write_zip(tmp_path / "a.zip", competition()).read_bytes()
    fetch.main(["kaggle"])
    assert "data/kaggle/competition.zip: 4 training and 3 test samples, complete" in capsys.readouterr().out
    assert [path.name for path in Path("data/kaggle").iterdir()] == ["competition.zip"]
    kaggle.archive = b"another"
    fetch.main(["kaggle"])
    assert "complete and undamaged, as it was" in capsys.readouterr().out


@pytest.mark.usefixtures("project")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_refusal_leaves_nothing_behind(kaggle: KaggleServer) -> None:
    kaggle.refusals.append((403, "Accept the rules", {}))
    with pytest.raises(InputError, match=r"accept the rules of the competition at https"):
        fetch.main(["kaggle"])
    assert list(Path("data").iterdir()) == []


@pytest.mark.usefixtures("project")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("link", [False, True])
def test_a_folder_of_the_user_stays_though_it_is_empty(kaggle: KaggleServer, tmp_path: Path, link: bool) -> None:
    place = Path("data/kaggle")
    place.parent.mkdir()
    if link:
        (tmp_path / "large").mkdir()
        place.symlink_to(tmp_path / "large")
    else:
        place.mkdir()
    kaggle.refusals.append((403, "Accept the rules", {}))
    with pytest.raises(InputError, match=r"accept the rules of the competition"):
        fetch.main(["kaggle"])
    assert place.is_dir()
    assert place.is_symlink() == link
    assert list(place.iterdir()) == []


@pytest.mark.usefixtures("project")
def test_a_list_that_exists_is_noticed_before_the_tables_are_read() -> None:
    with pytest.raises(InputError, match=r"list\.csv exists: name another file"):
        fetch.main(["atlas-labels", "none.tsv", "none.xml.gz", "--out", "list.csv"])
    assert Path("list.csv").read_text() == LIST


@pytest.mark.usefixtures("project")
def test_labels_of_the_atlas_become_such_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    Path("table.tsv").write_text(
        "Gene\tEnhanced\tSupported\tApproved\tUncertain\nENSG1\tCytosol\t\t\tNucleoli\nENSG2\t\t\t\tVesicles\n"
    )
    Path("images.csv").write_text("Id,Gene\n7_1_A1_1,ENSG1\n8_1_A1_1,ENSG2\n")
    fetch.main(["atlas-labels", "table.tsv", "images.csv", "--out", "new.csv"])
    assert Path("new.csv").read_text() == "Id,Target\n7_1_A1_1,25\n"
    assert "new.csv: 1 images with labels" in capsys.readouterr().out
    fetch.main(["atlas-labels", "table.tsv", "images.csv", "--out", "all.csv", "--reliability", "uncertain"])
    assert Path("all.csv").read_text() == "Id,Target\n7_1_A1_1,2 25\n"
    assert "Vesicles (1)" in capsys.readouterr().out
