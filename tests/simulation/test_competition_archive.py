"""The archive: Kaggle's layout, and the same bytes every time."""

import hashlib
import io
import operator
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from ruamel.yaml import YAML

from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS, parse_target
from pipeline.core.params import Simulation
from pipeline.simulation.competition import plan
from pipeline.simulation.competition_archive import AHEAD, groups, in_order, targets, write_archive
from pipeline.simulation.render import render
from pipeline.stages import simulate

SMALL = Simulation(seed=5, train=5, test=3, size=64, fields_per_antibody=2, near_duplicates=0.2, test_exposure=0.75)


def digest(path: Path, sample: Simulation, workers: int) -> str:
    write_archive(path, plan(sample), sample, workers)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZipFile]:
    path = tmp_path_factory.mktemp("simulate") / "competition.zip"
    write_archive(path, plan(SMALL), SMALL, workers=0)
    with ZipFile(path) as opened:
        yield opened


def test_the_archive_is_laid_out_as_kaggles(archive: ZipFile) -> None:
    train = pd.read_csv(io.BytesIO(archive.read("train.csv")))
    submission = pd.read_csv(io.BytesIO(archive.read("sample_submission.csv")))
    assert list(train) == ["Id", "Target"]
    assert list(submission) == ["Id", "Predicted"]
    assert (len(train), len(submission)) == (5, 3)
    assert (submission["Predicted"] == 0).all()
    assert all(parse_target(str(target)) for target in train["Target"])
    images = [f"{split}/{id_}_{channel}.png" for split, table in (("train", train), ("test", submission))
              for id_ in table["Id"] for channel in CHANNELS]  # fmt: skip
    assert archive.namelist() == ["train.csv", "sample_submission.csv", *images]
    assert all(member.compress_type == ZIP_STORED for member in archive.infolist())


def test_images_are_gray_pngs_of_the_pixels_drawn(archive: ZipFile) -> None:
    entry = plan(SMALL)[0]
    drawn = render(entry, SMALL)
    for index, channel in enumerate(CHANNELS):
        with Image.open(io.BytesIO(archive.read(f"train/{entry.id}_{channel}.png"))) as image:
            assert (image.mode, image.size) == ("L", (64, 64))
            np.testing.assert_array_equal(np.asarray(image), drawn[..., index])


def test_the_bytes_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    assert digest(tmp_path / "a.zip", SMALL, 0) == digest(tmp_path / "b.zip", SMALL, 2)


def test_the_bytes_depend_on_the_seed(tmp_path: Path) -> None:
    other = SMALL.model_copy(update={"seed": 6})
    assert digest(tmp_path / "a.zip", SMALL, 0) != digest(tmp_path / "b.zip", other, 0)


def test_work_comes_back_in_order_without_running_far_ahead() -> None:
    asked = []

    def items() -> Iterator[int]:
        for item in range(50):
            asked.append(item)
            yield item

    results = in_order(operator.neg, items(), workers=2)
    assert next(results) == 0
    assert len(asked) <= 2 * AHEAD + 1
    assert list(results) == [-item for item in range(1, 50)]


def test_tables_name_every_sample() -> None:
    entries = plan(SMALL)
    assert list(groups(entries)["id"]) == [entry.id for entry in entries]
    assert list(targets(entries)["Id"]) == [entry.id for entry in entries]
    assert groups(entries)["antibody"].str.fullmatch(r"HPA\d{6}").all()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the parameters of a competition of a few small images."""
    text = Path("params.yaml").read_text()
    for before, after in (("train: 480", "train: 3"), ("test: 160", "test: 2"), ("size: 512  ", "size: 64  ")):
        assert before in text
        text = text.replace(before, after, 1)
    (tmp_path / "params.yaml").write_text(text.replace("workers: auto", "workers: 0"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def theirs(name: str) -> bytes:
    """A user's file of that name."""
    if name != "competition.zip":
        return b"id,antibody\na,HPA1\n"
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as archive:
        archive.writestr("train.csv", "Id,Target\na,1\n")  # dated today
        archive.writestr("sample_submission.csv", "Id,Predicted\nb,0\n")
    return buffer.getvalue()


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"competition.zip": theirs("competition.zip")}, "competition.zip"),
        ({"competition.zip": b"half a download"}, "competition.zip"),
        ({"groups.csv": theirs("groups.csv")}, "groups.csv"),
        ({"test_truth.csv": theirs("test_truth.csv"), "competition.zip": theirs("competition.zip")}, "test_truth.csv"),
    ],
)
def test_a_competition_of_the_user_s_is_not_replaced(files: dict[str, bytes], named: str) -> None:
    folder = Path("data/sample")
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"^data/sample/{named} is not simulated, .* such as data/kaggle/"):
        simulate.main()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


@pytest.mark.parametrize("gone", ["nothing", "competition.zip", "groups.csv", "parameters"])
def test_a_simulated_competition_is_replaced(project: Path, gone: str) -> None:
    simulate.main()
    before = {path.name: path.read_bytes() for path in Path("data/sample").iterdir()}
    if gone == "parameters":
        text = (project / "params.yaml").read_text()
        (project / "params.yaml").write_text(text.replace("train: 3", "train: 4"))
    elif gone != "nothing":
        (project / "data/sample" / gone).unlink()
    simulate.main()
    after = {path.name: path.read_bytes() for path in Path("data/sample").iterdir()}
    assert (after == before) == (gone != "parameters")


def test_dvc_keeps_what_is_in_the_place_of_the_simulated_competition() -> None:
    stage = YAML(typ="safe").load(Path("data/sample/dvc.yaml"))["stages"]["simulate"]
    assert all(options["persist"] for out in stage["outs"] for options in out.values())


@pytest.mark.usefixtures("project")
def test_the_stage_writes_the_archive_and_what_is_known_about_it() -> None:
    simulate.main()
    folder = Path("data/sample")
    assert {path.name for path in folder.iterdir()} == {"competition.zip", "groups.csv", "test_truth.csv"}
    with ZipFile(folder / "competition.zip") as archive:
        train = pd.read_csv(io.BytesIO(archive.read("train.csv")))
        submission = pd.read_csv(io.BytesIO(archive.read("sample_submission.csv")))
    truth, antibodies = pd.read_csv(folder / "test_truth.csv"), pd.read_csv(folder / "groups.csv")
    assert list(truth) == ["Id", "Target"]
    assert list(antibodies) == ["id", "antibody"]
    assert list(truth["Id"]) == list(submission["Id"])
    assert list(antibodies["id"]) == [*train["Id"], *submission["Id"]]
