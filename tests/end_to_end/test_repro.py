"""`dvc repro` on a tiny simulated competition: it runs through, and then reruns exactly what a change can affect."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from pipeline.core import params
from pipeline.core.labels import LABELS, format_target, parse_target

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("one run of the pipeline")]

NO_NETWORK = """
import socket
connect = socket.socket.connect
def raise_problems(*args, **kwargs):
    with open({log!r}, "a") as file:
        file.write(repr(args) + chr(10))
    raise OSError("no network at run time")
def connect_locally(self, address):
    # Loader processes talk to each other over sockets that are files.
    return connect(self, address) if self.family == socket.AF_UNIX else raise_problems(address)
socket.socket.connect = connect_locally
socket.getaddrinfo = refuse
"""

TINY = {
    r"train: 480": "train: 90",
    r"test: 160": "test: 20",
    r"\bsize: 512": "size: 64",  # simulated and packed
    r"\bsize: (96|128)": "size: 32",
    r"epochs: \d+": "epochs: 1",
    r"ids: \[0, 1, 2\]": "ids: [0, 1]",
    r"views: .*": "views: [identity]",
    r"resamples: 1000": "resamples: 20",
}


class Project:
    """A copy of the pipeline in a folder of its own, without a network."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls = root / "network.log"
        self.first_run: set[str] = set()
        for name in ("dvc.yaml", ".dvcignore"):
            shutil.copy(ROOT / name, root)
        shutil.copytree(ROOT / "pipeline", root / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "weights", root / "weights", ignore=shutil.ignore_patterns("*.safetensors", "*.pth"))
        (root / "data/sample").mkdir(parents=True)
        shutil.copy(ROOT / "data/sample/dvc.yaml", root / "data/sample")
        shutil.copytree(ROOT / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
        (root / "blocked").mkdir()
        (root / "blocked/sitecustomize.py").write_text(NO_NETWORK.format(log=str(self.calls)))
        shutil.copy(ROOT / "params.yaml", root)
        for pattern, new in TINY.items():
            self.change(pattern, new)
        self.run("dvc", "config", "core.no_scm", "true")

    def change(self, pattern: str, new: str) -> None:
        """Replace all that matches in params.yaml."""
        path = self.root / "params.yaml"
        changed, count = re.subn(pattern, new, path.read_text())
        assert count, pattern
        path.write_text(changed)

    def run(self, *command: str, code: int = 0) -> str:
        scripts = str(Path(sys.executable).parent)
        environment = os.environ | {
            "PATH": scripts + os.pathsep + os.environ["PATH"],
            "PYTHONPATH": str(self.root / "blocked"),
        }
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def repro(self) -> set[str]:
        """Run the pipeline; the stages that ran, without those that did not change."""
        return set(re.findall(r"Running stage '(?:[^':]*:)?([^':]+)'", self.run("dvc", "repro")))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("project"))
    project.first_run = project.repro()
    return project


def cells(stage: str, *models: str) -> set[str]:
    return {f"{stage}@{model}-{fold}" for model in models for fold in (0, 1)}


def test_a_run_and_what_a_change_reruns(project: Project) -> None:
    models = list(params.load().models)
    assert len(models) >= 2
    after = {"ensemble", "score", "submit", "report"}
    maps = {f"explain@{model}" for model in models}
    everything = maps | {"simulate", "pack@sample", "folds"} | cells("train", *models) | cells("tta", *models) | after
    assert project.first_run == everything
    assert not project.calls.exists(), project.calls.read_text()

    assert project.repro() == set()

    project.change(r"views: \[identity\]", "views: [identity, flip]")
    # Maps are drawn anew only if the change singles out other examples.
    assert project.repro() - maps == cells("tta", *models) | after

    # The other kinds of model, which all that follows has to get along with.
    shutil.copy(project.root / f"models/{models[0]}/fold-0.safetensors", project.root / "own.safetensors")
    measured = "\n  measured:\n    <<: *base\n    backbone: measured\n    head: forest\n    pretrained: false"
    kernel = "\n    head: kernel\n    pretrained: own.safetensors"
    project.change(rf"(\n  {models[-1]}:\n    <<: \*base)", rf"{measured}\1{kernel}")
    new = ("measured", models[-1])
    again = project.repro() - {f"explain@{model}" for model in models[:-1]}
    assert again == cells("train", *new) | cells("tta", *new) | after | {f"explain@{model}" for model in new}


def test_the_submission_is_valid(project: Project) -> None:
    submission = pd.read_csv(project.root / "submission.csv", dtype=str, keep_default_na=False)
    with zipfile.ZipFile(project.root / "data/sample/competition.zip") as archive:
        sample = pd.read_csv(archive.open("sample_submission.csv"), dtype=str)
    assert list(submission.columns) == ["Id", "Predicted"]
    assert submission["Id"].tolist() == sample["Id"].tolist()
    for predicted in submission["Predicted"]:
        ids = parse_target(predicted)
        assert list(ids) == sorted(ids)


def test_the_test_images_as_new_ones_get_the_labels_of_the_submission(project: Project) -> None:
    project.run(sys.executable, "-m", "pipeline.commands.predict", "data/sample", "--out", "predictions.csv")
    predicted = pd.read_csv(project.root / "predictions.csv", dtype={"id": str}).set_index("id")["labels"]
    submission = pd.read_csv(project.root / "submission.csv", dtype=str).set_index("Id")["Predicted"]
    ids = predicted[submission.index].map(lambda names: [LABELS.index(name) for name in names.split("; ")])
    assert ids.map(format_target).tolist() == submission.tolist()


def test_the_report_is_whole(project: Project) -> None:
    report = (project.root / "report.html").read_text()
    assert all(f'<section id="{section}">' in report for section in ("score", "labels", "errors", "attention", "run"))


def test_the_summary_names_what_was_written(project: Project) -> None:
    summary = project.run(sys.executable, "-m", "pipeline.commands.summary")
    for word in ("submission.csv", "metrics.json", "macro-F1", "by fold", "test set"):
        assert word in summary


def test_a_typo_in_params_ends_the_stage_with_its_name(project: Project) -> None:
    path = project.root / "params.yaml"
    before = path.read_text()
    path.write_text(before.replace("  resamples:", "  resample:"))
    output = project.run(sys.executable, "-m", "pipeline.stages.submit", code=1)
    path.write_text(before)
    assert "score.resample: unknown key; allowed here: resamples" in output
    assert "Traceback" not in output
