"""A package: valid, the same numbers as ``predict``, and without torch."""

import gc
import hashlib
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from ruamel.yaml import YAML

from pipeline.commands import export, predict
from pipeline.core import params, paths
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS, LABELS
from pipeline.export import bioimage, documents, graphs, package, sessions
from pipeline.export.selection import select
from tests.fixtures.archives import field, png, write_files, write_zip
from tests.fixtures.exports import MODELS, write_exportable_run
from tests.fixtures.models import CLASSICAL, FROZEN

SIDES = {"packed": 48, "double": 96, "other": 75}
HIDDEN = """
import runpy, sys
for name in ("torch", "pipeline", "onnx", "bioimageio", "cv2", "pandas", "scipy"):
    sys.modules[name] = None  # importing it is an error
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script where only onnxruntime, numpy and Pillow, with what they need, can be imported."""


def write_samples(folder: Path) -> None:
    """A sample of each side."""
    write_files(
        folder,
        {
            f"{name}_{channel}.png": png(field(name, side)[..., position])
            for name, side in SIDES.items()
            for position, channel in enumerate(CHANNELS)
        },
    )


def run_script(packed: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Unpack a package and run its script, without what it may not need."""
    folder = packed.with_suffix("")
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(folder)
    command = [sys.executable, "-c", HIDDEN, str(folder / "predict.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def as_predicted(*arguments: str) -> pd.DataFrame:
    predict.main(["new", "--precision", "fp32", *arguments])
    return pd.read_csv("predictions.csv", dtype={"id": str})


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two networks, its package, and new samples."""
    root = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_exportable_run(blend="logits", calibration="none")
        write_samples(root / "new")
        export.main(["--out", "model.zip"])
    return root


@pytest.fixture
def run(packaged: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(packaged)
    return packaged


@pytest.fixture
def quick() -> Callable[..., Any]:
    """``export`` without the graph, which takes most of the time: what is selected."""

    def quick(*arguments: str) -> Any:
        with mock.patch.object(package, "write") as write:
            export.main(arguments)
        return write.call_args.args[1]

    return quick


@pytest.mark.usefixtures("run")
def test_the_script_prints_what_predict_writes_without_torch() -> None:
    done = run_script(Path("model.zip"), "new")
    assert done.returncode == 0, done.stderr
    Path("script.csv").write_text(done.stdout)
    found, expected = pd.read_csv("script.csv", dtype={"id": str}), as_predicted()
    assert found.columns.tolist() == expected.columns.tolist()
    assert found["id"].tolist() == expected["id"].tolist() == sorted(SIDES)
    assert found["labels"].tolist() == expected["labels"].tolist()
    np.testing.assert_allclose(found[list(LABELS)], expected[list(LABELS)], atol=1e-5)
    assert found[list(LABELS)].std().median() > 1e-3  # the samples differ, so agreement says something


@pytest.mark.usefixtures("run")
def test_the_script_names_images_that_it_cannot_read() -> None:
    write_files(Path("bad"), {f"a_{channel}.png": png(field("a", 48)[:40, :, 0]) for channel in CHANNELS})
    done = run_script(Path("model.zip"), "bad")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("a_*.png: not square 8-bit grayscale images of one size: convert or crop them")


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "odd: no files ID_green.png: name a folder with four PNGs per sample"),
        ({"a_green.png": png(field("a", 48)[..., 0])}, "a_blue.png cannot be read ([Errno 2] No such file"),
        (
            {f"a_{channel}.png": png(field("a", 48)[..., 0])[:-400] for channel in CHANNELS},
            "a_green.png cannot be read (",
        ),
        ({f"a_{channel}.png": b"" for channel in CHANNELS}, "a_green.png cannot be read (cannot identify image file"),
    ],
)
def test_the_script_ends_with_one_line_where_images_lack(files: dict[str, bytes], expected: str) -> None:
    shutil.rmtree("odd", ignore_errors=True)
    write_files(Path("odd"), {**files, "._b_green.png": b"of a Mac"})
    done = run_script(Path("model.zip"), "odd")
    assert done.returncode == 1
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.usefixtures("run")
def test_the_script_explains_itself_without_a_folder() -> None:
    assert "python predict.py FOLDER" in run_script(Path("model.zip")).stderr


@pytest.mark.usefixtures("run")
def test_the_script_ends_quietly_when_nobody_reads_on() -> None:
    with zipfile.ZipFile("model.zip") as archive:
        archive.extractall("piped")
    command = f"set -o pipefail; {sys.executable} piped/predict.py new | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == ""


@pytest.mark.usefixtures("run")
def test_the_description_is_valid_and_says_what_is_in_the_package() -> None:
    with zipfile.ZipFile("model.zip") as archive:
        archive.extractall("valid")
        bioimage.validate(Path("valid"), Path("model.zip"))
        described = YAML(typ="safe").load(archive.read("rdf.yaml"))
        rule = json.loads(archive.read("decisions.json"))
        digest = hashlib.sha256(archive.read("model.onnx")).hexdigest()
        readme = archive.read("README.md").decode()
        script = archive.read("predict.py").decode()
    assert described["weights"]["onnx"]["sha256"] == digest
    assert described["license"] == "MIT"
    assert described["authors"] == [{"name": export.AUTHOR}]
    assert described["inputs"][0]["axes"][1]["channel_names"] == list(CHANNELS)
    assert described["outputs"][0]["axes"][1]["channel_names"] == rule["labels"] == list(LABELS)
    stored = json.loads((paths.BLEND / "decisions.json").read_text())
    assert rule["thresholds"] == stored["thresholds"]
    assert rule["weights"] == stored["weights"]
    assert "Score of simulated images: macro-F1 " in readme
    for heading in ("Validation", "Training data", "Limits"):
        assert f"## {heading}" in readme
    assert len(script.splitlines()) < 50


@pytest.mark.usefixtures("run")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_package_is_not_valid(tmp_path: Path) -> None:
    with zipfile.ZipFile("model.zip") as archive:
        archive.extractall(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(InputError, match=r"model\.zip was not written, since bioimageio\.spec does not accept it: "):
        bioimage.validate(tmp_path, Path("model.zip"))
    gc.collect()  # bioimageio.spec does not close the file that it cannot read: the warning belongs here


@pytest.mark.usefixtures("run")
def test_the_test_tensors_are_reproduced_in_any_batch() -> None:
    with zipfile.ZipFile("model.zip") as archive:
        archive.extractall("unpacked")
    session = onnxruntime.InferenceSession("unpacked/model.onnx")
    images, expected = np.load("unpacked/test_input.npy"), np.load("unpacked/test_output.npy")
    many = session.run(None, {"images": np.concatenate([images, images[::-1], images[:1]])})[0]
    np.testing.assert_allclose(many, np.concatenate([expected, expected[::-1], expected[:1]]), atol=1e-6)


@pytest.mark.usefixtures("run")
def test_the_graph_names_its_labels_and_no_path_of_this_machine() -> None:
    with zipfile.ZipFile("model.zip") as archive:
        model = onnx.load_from_string(archive.read("model.onnx"))
    about = {pair.key: json.loads(pair.value) for pair in model.metadata_props}
    assert about["labels"] == list(LABELS)
    assert about["channels"] == list(CHANNELS)
    content = model.SerializeToString()
    assert b"site-packages" not in content
    assert bytes(Path(export.__file__).parent.parent) not in content


@pytest.mark.usefixtures("run")
def test_fast_is_one_network_with_a_rule_of_its_own(quick: Callable[..., Any]) -> None:
    chosen = quick("--fast")
    weights = json.loads((paths.BLEND / "decisions.json").read_text())["weights"]
    assert [name for name, _, _ in chosen.networks] == [max(weights, key=weights.__getitem__)]
    assert chosen.views == ("identity",)
    assert len(chosen.rule.blender.weights) == 1
    assert "probably a little higher" in documents.notes(chosen)[-1]


@pytest.fixture
def same_graph(run: Path) -> Iterator[None]:
    """The graph of the package, as if it was exported again."""
    with zipfile.ZipFile(run / "model.zip") as archive:
        graph = archive.read("model.onnx")
    with mock.patch.object(graphs, "export", side_effect=lambda *_, path: path.write_bytes(graph)):
        yield


@pytest.mark.usefixtures("same_graph")
def test_the_same_run_gives_the_same_bytes(run: Path) -> None:
    export.main(["--out", "again.zip"])
    assert Path("again.zip").read_bytes() == Path("model.zip").read_bytes()
    assert not list(run.glob(".*"))


@pytest.mark.usefixtures("same_graph")
def test_a_package_is_replaced_only_by_a_valid_one(run: Path) -> None:
    before = Path("model.zip").read_bytes()
    with (
        mock.patch.object(bioimage, "validate", side_effect=InputError("not valid")),
        pytest.raises(InputError, match="not valid"),
    ):
        export.main(["--out", "model.zip"])
    assert Path("model.zip").read_bytes() == before
    assert not list(run.glob(".*"))


@pytest.mark.usefixtures("run")
def test_a_graph_that_computes_something_else_is_not_written() -> None:
    with (
        mock.patch.object(sessions, "run", return_value=np.full((1, 28), 0.5, np.float32)),
        mock.patch.object(graphs, "export"),
        mock.patch.object(sessions, "open_session"),
        pytest.raises(InputError, match="the probabilities of the exported graph differ by 0"),
    ):
        export.main(["--out", "wrong.zip"])
    assert not Path("wrong.zip").exists()


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--license", "my own"], r"^--license my own: give an SPDX identifier as on https://spdx\.org/licenses"),
        (["--author", "A", "--author", "Lab/B"], r"^--author 'Lab/B': give a name without a slash"),
        (["--author", " "], r"^--author ' ': give a name"),
        (["--out", "images.zip"], r"images\.zip exists and is no package of this command: name another file"),
        (["--out", "text.zip"], r"text\.zip exists and is no package of this command: name another file"),
    ],
)
def test_what_the_zoo_or_another_file_forbids_is_noticed_before_the_work(arguments: list[str], expected: str) -> None:
    write_zip(Path("images.zip"), {"a_green.png": b""})
    Path("text.zip").write_text("mine")
    with (
        mock.patch.object(export, "select", side_effect=AssertionError("too late")),
        pytest.raises(InputError, match=expected),
    ):
        export.main(arguments)
    assert Path("text.zip").read_text() == "mine"


@pytest.mark.usefixtures("run")
def test_reasons_of_the_validator_are_short(tmp_path: Path) -> None:
    with zipfile.ZipFile("model.zip") as archive:
        archive.extractall(tmp_path)
    described = (tmp_path / "rdf.yaml").read_text()
    (tmp_path / "rdf.yaml").write_text(described.replace("license: MIT", "license: my own"))
    with pytest.raises(InputError, match=r"does not accept it: license\.") as error:
        bioimage.validate(tmp_path, Path("model.zip"))
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize("out", ["model.onnx", "folder.zip"])
def test_a_name_that_is_no_zip_is_an_error(out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.zip").mkdir()
    with pytest.raises(InputError, match=rf"^--out {out}: name a file that ends in \.zip$"):
        export.main(["--out", out])


def test_missing_packages_are_named() -> None:
    with (
        mock.patch.object(importlib.util, "find_spec", return_value=None),
        pytest.raises(InputError, match=r"needs onnx, .*bioimageio\.spec: pip install -r requirements-export\.txt"),
    ):
        export.main([])


def test_a_folder_without_a_run_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_exportable_run({"pooled": MODELS["pooled"]})
    (paths.BLEND / "decisions.json").unlink()
    with pytest.raises(InputError, match="no finished run beside models, so there is no decision rule: run dvc repro"):
        select(Path("models"), params.load(), fast=False)


def test_hand_crafted_models_are_left_out_and_kernel_heads_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_exportable_run({"forest": CLASSICAL, "kernel": FROZEN}, blend="probabilities")
    write_samples(tmp_path / "new")
    export.main(["--out", "model.zip", "--license", "CC-BY-4.0", "--author", "A. Person", "--author", "B. Person"])
    said = capsys.readouterr().err
    assert "Left out: forest, whose hand-crafted features ONNX has no operations for" in said
    assert said.count("macro-F1") == 3  # of the package, again in that line, and with the forest
    with zipfile.ZipFile("model.zip") as archive:
        described = YAML(typ="safe").load(archive.read("rdf.yaml"))
        rule = json.loads(archive.read("decisions.json"))
    assert described["license"] == "CC-BY-4.0"
    assert described["authors"] == [{"name": "A. Person"}, {"name": "B. Person"}]
    assert rule["weights"] == {"kernel": 1.0}
    done = run_script(Path("model.zip"), "new")
    Path("script.csv").write_text(done.stdout)
    found = pd.read_csv("script.csv")[list(LABELS)]
    # What predict says of the kernel model alone, with the calibration of the package.
    stored = json.loads((paths.BLEND / "decisions.json").read_text())
    alone = {**stored, **{key: rule[key] for key in ("weights", "slope", "offsets", "thresholds")}}
    (paths.BLEND / "decisions.json").write_text(json.dumps(alone))
    np.testing.assert_allclose(found, as_predicted()[list(LABELS)], atol=1e-4)


def test_a_run_of_hand_crafted_features_alone_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_exportable_run({"forest": CLASSICAL})
    with pytest.raises(InputError, match="hand-crafted features cannot be exported to ONNX, and there is no other"):
        select(Path("models"), params.load(), fast=False)
