"""Experiments and a colleague's clone, in a project under git whose images were placed by hand."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
        for name in ("dvc.yaml", ".dvcignore", ".gitattributes", ".gitignore", "params.yaml"):
            shutil.copy(ROOT / name, root / name)
        shutil.copytree(ROOT / "pipeline", root / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
        (root / "weights").mkdir()
        (root / "weights/README.md").touch()
        for name in ("autoencoders", "submissions"):
            shutil.copytree(ROOT / name, root / name)
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


def test_a_model_is_added_by_an_experiment(project: Project) -> None:
    """It takes what it lacks from its template; a typo is one message, and leaves no experiment."""
    added = "+models.second={kind: classical, size: 32}"
    project.run("dvc", "exp", "run", "--name", "second", "-S", added, "complete-models")
    template = params.load(project.root / "params.yaml").templates.classical
    second = params.load_model(project.root / paths.model_params("second"))
    assert second == template.model_copy(update={"size": 32})
    project.run("git", "checkout", "--quiet", ".")
    said = project.run("dvc", "exp", "run", "--name", "typo", "-S", "+ensemble.tresholds=global", "ensemble", code=255)
    assert "error: params.yaml: ensemble.tresholds: unknown key; allowed here: blend" in said
    assert "Traceback" not in said
    assert "typo" not in experiments(project)
    project.run("git", "checkout", "--quiet", ".")
    project.run("dvc", "checkout", "--quiet", "--force")


@contextmanager
def asked_all_the_time(project: Project, *commands: str) -> Iterator[None]:
    """As an editor's extension asks for what it shows, while the block runs."""
    path = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]
    asking = subprocess.Popen(
        f"while :; do {'; '.join(commands)}; done",
        shell=True,  # a loop
        cwd=project.root,
        env=os.environ | {"PATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
        assert asking.poll() is None
    finally:
        os.killpg(asking.pid, signal.SIGKILL)
        asking.wait()


def test_an_experiment_is_taken_over_and_given_up_again_without_a_run(project: Project) -> None:
    with asked_all_the_time(project, "dvc exp show", "dvc data status", "dvc params diff", "git status"):
        taken = ("--name", "taken", "-S", "ensemble.thresholds=fixed", "ensemble")
        project.run("dvc", "--wait-for-lock", "exp", "run", *taken)
    project.run("git", "checkout", "--quiet", ".")
    project.run("dvc", "checkout", "--quiet", "--force")
    project.run("dvc", "exp", "apply", "taken")
    assert params.load(project.root / "params.yaml").ensemble.thresholds == "fixed"
    project.run("git", "checkout", "--quiet", ".")
    project.run("dvc", "checkout", "--quiet", "--force")
    assert "up to date" in project.run("dvc", "status")


def test_an_experiment_runs_in_a_copy(project: Project) -> None:
    project.run("dvc", "exp", "run", "--temp", "--name", "aside", "-S", "ensemble.thresholds=counts", "ensemble")
    assert "aside" in experiments(project)
    assert params.load(project.root / "params.yaml").ensemble.thresholds == "bagged"


def test_a_grid_of_experiments_waits_in_the_queue(project: Project) -> None:
    project.run("dvc", "exp", "run", "--queue", "-S", "ensemble.thresholds=expected,fixed", "ensemble")
    project.run("dvc", "queue", "start")
    for _ in range(120):
        status = project.run("dvc", "queue", "status")
        if "Running" not in status and "Queued" not in status:
            break
        time.sleep(1)
    assert status.count("Success") == 2
    assert experiments(project).count(",Success") == 2


def test_a_clone_gets_the_results_without_the_images(project: Project, tmp_path: Path) -> None:
    """Also one without history, with git's settings for Windows, in a folder that is not named in ASCII."""
    project.run("git", "checkout", "--quiet", "--force", ".")
    project.run("dvc", "repro")
    project.run("dvc", "remote", "add", "--local", "--default", "--force", "store", str(tmp_path / "store"))
    project.run("dvc", "push")
    clone = tmp_path / "Jörg's clone"
    options = ("--depth", "1", "--config", "core.autocrlf=true")
    project.run("git", "clone", "--quiet", *options, f"file://{project.root}", str(clone))
    (clone / "data" / SOURCE).unlink()  # the colleague has no images
    project.run("dvc", "remote", "add", "--local", "--default", "store", str(tmp_path / "store"), cwd=clone)
    predict = (sys.executable, "-m", "pipeline", "predict", str(project.root / "data" / SOURCE), "--out", "new.csv")
    said = project.run(*predict, cwd=clone, code=1)
    assert "models: no models found" in said
    assert "dvc pull" in said
    project.run("dvc", "pull", cwd=clone)
    said = project.run("dvc", "repro", "--pull", cwd=clone)
    assert "Running stage" not in said
    for name in ("report.html", "submission.csv", "blend/decisions.json", "models/forest/fold-0.safetensors"):
        assert (clone / name).read_bytes() == (project.root / name).read_bytes()
    project.run(*predict, cwd=clone)
    assert (clone / "new.csv").exists()
    said = project.run("dvc", "repro", cwd=clone, code=255)
    assert "failed to reproduce 'pack@own'" in said
    assert f"data/{SOURCE}" in said
