"""Experiments and a colleague's clone, in a project under git whose images were placed by hand."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.core import params, paths
from pipeline.simulation.competition import plan
from pipeline.simulation.competition_archive import write_archive

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow

SOURCE = "own"


class Project:
    """A copy of the pipeline in a git repository, with small parameters and a source that git does not track."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("dvc.yaml", ".dvcignore", ".gitignore", "params.yaml"):
            shutil.copy(ROOT / name, root / name)
        shutil.copytree(ROOT / "pipeline", root / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
        (root / "weights").mkdir()
        (root / "weights/README.md").touch()
        self._configure()
        for command in (
            ("init", "--quiet"),
            ("config", "user.name", "somebody"),
            ("config", "user.email", "somebody@example.org"),
        ):
            self.run("git", *command)
        settings = params.load(root / "params.yaml")
        (root / "data" / SOURCE).mkdir(parents=True)
        write_archive(root / "data" / SOURCE / "competition.zip", plan(settings.sample), settings.sample, 1)
        self.commit("start")

    def _configure(self) -> None:
        path, yaml = self.root / "params.yaml", YAML(typ="safe")
        settings: dict[str, Any] = yaml.load(path)
        settings["data"]["sources"] = [SOURCE]
        settings["sample"].update(train=60, test=12, size=64)
        settings["pack"]["size"] = 64
        settings["folds"]["ids"] = [0, 1]
        settings["models"] = {"forest": {"kind": "classical", "size": 32}}
        settings["tta"]["views"] = ["identity"]
        settings["score"]["resamples"] = 20
        yaml.dump(settings, path)

    def run(self, *command: str, cwd: Path | None = None, code: int = 0) -> str:
        path = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]
        done = subprocess.run(
            command,
            cwd=cwd or self.root,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a finished run whose images are a link that git tracks."""
    root = tmp_path_factory.mktemp("project")
    project = Project(root)
    assert "own" not in project.run("git", "ls-files")
    elsewhere = root.parent / "elsewhere"
    shutil.move(root / "data" / SOURCE, elsewhere)
    (root / "data" / SOURCE).symlink_to(elsewhere)
    project.run("git", "add", "--force", f"data/{SOURCE}")
    project.run("dvc", "repro")
    project.commit("a run")
    return project


def experiments(project: Project) -> str:
    return project.run("dvc", "exp", "show", "--csv")


def test_an_experiment_runs_in_the_folder_and_a_template_still_reaches_the_models(project: Project) -> None:
    project.run("dvc", "exp", "run", "--name", "plain", "-S", "ensemble.thresholds=global", "ensemble")
    assert "plain" in experiments(project)
    project.run("dvc", "exp", "run", "--name", "seed", "-S", "templates.classical.seed=3", "complete-models")
    settings = params.load(project.root / "params.yaml")
    assert settings.ensemble.thresholds == "global"
    assert params.load_model(project.root / paths.model_params("forest")).seed == settings.models["forest"].seed == 3
    project.run("git", "checkout", "--quiet", "params.yaml")
    project.run("dvc", "checkout", "--quiet", "--force")


def test_an_experiment_runs_in_a_copy(project: Project) -> None:
    project.run("dvc", "exp", "run", "--temp", "--name", "aside", "-S", "ensemble.thresholds=counts", "ensemble")
    assert "aside" in experiments(project)
    assert params.load(project.root / "params.yaml").ensemble.thresholds == "bagged"


def test_an_experiment_waits_in_the_queue(project: Project) -> None:
    project.run("dvc", "exp", "run", "--queue", "--name", "later", "-S", "ensemble.thresholds=expected", "ensemble")
    project.run("dvc", "queue", "start")
    for _ in range(120):
        status = project.run("dvc", "queue", "status")
        if "Running" not in status and "Queued" not in status:
            break
        time.sleep(1)
    assert "Success" in status
    assert "later" in experiments(project)


def test_a_clone_gets_the_results_without_the_images(project: Project, tmp_path: Path) -> None:
    project.run("git", "checkout", "--quiet", "--force", ".")
    project.run("dvc", "repro")
    project.run("dvc", "remote", "add", "--local", "--default", "store", str(tmp_path / "store"))
    project.run("dvc", "push")
    clone = tmp_path / "clone"
    project.run("git", "clone", "--quiet", str(project.root), str(clone))
    (clone / "data" / SOURCE).unlink()  # the colleague has no images
    project.run("dvc", "remote", "add", "--local", "--default", "store", str(tmp_path / "store"), cwd=clone)
    project.run("dvc", "pull", cwd=clone)
    said = project.run("dvc", "repro", "--pull", cwd=clone)
    assert "Running stage" not in said
    for name in ("report.html", "submission.csv", "blend/decisions.json", "models/forest/fold-0.safetensors"):
        assert (clone / name).read_bytes() == (project.root / name).read_bytes()
    said = project.run("dvc", "repro", cwd=clone, code=255)
    assert "failed to reproduce 'pack@own'" in said
    assert f"data/{SOURCE}" in said
