"""`dvc repro` on a tiny simulated competition: it runs through, and then reruns exactly what a change can affect."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from pipeline.labels import parse_target

ROOT = Path(__file__).parent.parent

NO_NETWORK = """
import socket
def refuse(*args, **kwargs):
    with open({log!r}, "a") as file:
        file.write(repr(args[1:]) + chr(10))
    raise OSError("no network at run time")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
"""

TINY = {
    "  train: 480": "  train: 90",
    "  test: 160": "  test: 20",
    "  size: 512": "  size: 64",  # sample and pack
    "ids: [0, 1, 2]": "ids: [0, 1]",
    "views: [identity, rot90, rot180, rot270, flip, flip_rot90, flip_rot180, flip_rot270]": "views: [identity]",
    "resamples: 1000": "resamples: 20",
}


class Project:
    """A copy of the pipeline in a folder of its own, without a network."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls = root / "network.log"
        for name in ("dvc.yaml", ".dvcignore"):
            shutil.copy(ROOT / name, root)
        shutil.copytree(ROOT / "pipeline", root / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
        (root / "data/sample").mkdir(parents=True)
        shutil.copy(ROOT / "data/sample/dvc.yaml", root / "data/sample")
        shutil.copytree(ROOT / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
        (root / "blocked").mkdir()
        (root / "blocked/sitecustomize.py").write_text(NO_NETWORK.format(log=str(self.calls)))
        (root / "params.yaml").write_text((ROOT / "params.yaml").read_text())
        for old, new in TINY.items():
            self.change(old, new)
        self.change(r"re:\bsize: (128|96|112)\b", "size: 32")
        self.change(r"re:epochs: \d+", "epochs: 1")
        self.run("dvc", "config", "core.no_scm", "true")

    def change(self, old: str, new: str) -> None:
        path = self.root / "params.yaml"
        text = path.read_text()
        pattern = old.removeprefix("re:") if old.startswith("re:") else re.escape(old)
        changed, count = re.subn(pattern, new, text)
        assert count, old
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
        return set(re.findall(r"Running stage '(?:.*:)?([^']+)'", self.run("dvc", "repro")))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("project"))
    project.ran = project.repro()  # type: ignore[attr-defined]
    return project


def cells(stage: str, *models: str) -> set[str]:
    return {f"{stage}@{model}-{fold}" for model in models for fold in (0, 1)}


@pytest.mark.slow
def test_a_run_and_what_a_change_reruns(project: Project) -> None:
    models = list(json.loads((project.root / "metrics.json").read_text())["models"])
    assert len(models) >= 2
    after = {"ensemble", "score", "submit"}
    everything = {"simulate", "pack@sample", "folds"} | cells("train", *models) | cells("tta", *models) | after
    assert project.ran == everything  # type: ignore[attr-defined]
    assert not project.calls.exists(), project.calls.read_text()

    assert project.repro() == set()

    project.change("views: [identity]", "views: [identity, flip]")
    assert project.repro() == cells("tta", *models) | after

    project.change(r"re:(?s)(models:.*?)batch_size: \d+", r"\1batch_size: 8")
    # The first section is the anchor that the others merge, so a line that they override changes it alone.
    project.change(r"re:(?s)(\n  " + models[1] + r":\n    <<: \*base\n)", r"\1    batch_size: 16\n")
    ran = project.repro()
    assert cells("train", models[0]) <= ran
    assert not {"simulate", "pack@sample", "folds"} & ran


@pytest.mark.slow
def test_the_submission_is_valid(project: Project) -> None:
    submission = pd.read_csv(project.root / "submission.csv", dtype=str, keep_default_na=False)
    index = pd.read_csv(project.root / "data/packed/sample/index.csv", dtype=str, keep_default_na=False)
    assert submission["Id"].tolist() == index.loc[index["split"] == "test", "id"].tolist()
    assert list(submission.columns) == ["Id", "Predicted"]
    for predicted in submission["Predicted"]:
        ids = parse_target(predicted)
        assert list(ids) == sorted(ids)
