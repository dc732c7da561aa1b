"""`dvc repro` on a tiny simulated competition: it runs through, and a change makes stale exactly what it can affect."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from pipeline.core import params
from pipeline.core.labels import LABELS, format_target, parse_target
from pipeline.models import checkpoint
from pipeline.models.network import Network
from pipeline.models.provenance import Provenance

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # pygtrie, used by DVC itself
]

NO_NETWORK = """
import socket
connect = socket.socket.connect
def refuse(*args, **kwargs):
    with open({log!r}, "a") as file:
        file.write(repr(args) + chr(10))
    raise OSError("no network at run time")
def connect_locally(self, address):
    # Loader processes talk to each other over sockets that are files.
    return connect(self, address) if self.family == socket.AF_UNIX else refuse(address)
socket.socket.connect = connect_locally
socket.getaddrinfo = refuse
"""

EDIT = """
import os, sys, threading, time
def edit(path, old, new):
    while not getattr(sys.modules.get("pipeline.core.stage_inputs"), "_before", None):
        time.sleep(0.001)
    text = open(path).read()
    assert old in text
    open(path, "w").write(text.replace(old, new))
if "EDIT" in os.environ and os.environ["EDIT_STAGE"] in sys.orig_argv:
    threading.Thread(target=edit, args=os.environ["EDIT"].split("|"), daemon=True).start()
"""
"""Edits a file while a stage runs, once the stage has begun."""

MODELS = ("net", "frozen", "forest")
AFTER_TTA = {"ensemble", "score", "submit", "report"} | {f"explain@{model}" for model in MODELS}
"""What the predictions can affect: the maps too, if the change singles out other examples."""

Edit = Callable[[str], str]


def jobs(stage: str, *models: str) -> set[str]:
    return {f"{stage}@{model}-{fold}" for model in models for fold in (0, 1)}


def shrink(settings: dict[str, Any]) -> None:
    """A model of each kind, two folds, few and small images, one epoch."""
    settings["sample"].update(train=60, test=12, size=64)
    settings["pack"]["size"] = 64
    settings["folds"]["ids"] = [0, 1]
    small = {"size": 32, "widths": [8, 16, 32, 64]}
    settings["models"] = {
        "net": {"kind": "network", "epochs": 1, "pretrained": False, "augment": {"crop": 1}} | small,
        "frozen": {"kind": "frozen", "pretrained": "weights/own.safetensors"} | small,
        "forest": {"kind": "classical", "size": 32},
    }
    settings["tta"]["views"] = ["identity", "flip"]
    settings["score"]["resamples"] = 20


class Project:
    """A copy of the pipeline in a folder of its own, without a network."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls = root / "network.log"
        self.first_run: set[str] = set()
        for name in (
            "dvc.yaml",
            ".dvcignore",
            "data/sample/dvc.yaml",
            "params.yaml",
            "autoencoders/.gitignore",
            "submissions/.gitignore",
        ):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
        shutil.copytree(ROOT / "pipeline", root / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
        self.configure(shrink)
        recipe = params.load(root / "params.yaml").models["net"]
        assert isinstance(recipe, params.NetworkModel)
        checkpoint.save(root / "weights/own.safetensors", Network(recipe), recipe, Provenance())
        (root / "blocked").mkdir()
        (root / "blocked/sitecustomize.py").write_text(NO_NETWORK.format(log=str(self.calls)) + EDIT)
        self.variables = {
            "PATH": str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"],
            "PYTHONPATH": str(root / "blocked"),
        }
        self.run("dvc", "config", "core.no_scm", "true")

    def configure(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change params.yaml."""
        path, yaml = self.root / "params.yaml", YAML(typ="safe")
        settings = yaml.load(path)
        change(settings)
        yaml.dump(settings, path)

    def run(self, *command: str, code: int = 0) -> str:
        done = subprocess.run(
            command, cwd=self.root, env=os.environ | self.variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def repro(self, *options: str) -> set[str]:
        """Run the pipeline; the stages that ran, without those that did not change."""
        output = self.run("dvc", "repro", *options)
        return set(re.findall(r"Running stage '(?:[^':]*:)?([^':]+)'", output))

    @contextmanager
    def repository(self) -> Iterator[Repo]:
        """DVC's view of the project once the code's digests and the models' sections are up to date."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.root)
            for name, value in self.variables.items():
                patch.setenv(name, value)
            with Repo() as repo:
                repo.reproduce(["code", "complete-models"])
                yield repo

    def stale(self) -> set[str]:
        """The stages that DVC would run because of what they read themselves."""
        with self.repository() as repo:
            return {name.rpartition(":")[2] for name in repo.status()}

    def downstream(self, stages: set[str]) -> set[str]:
        """These stages and all that read, directly or not, what they write."""
        with self.repository() as repo:
            graph = repo.index.graph  # an edge leads from a stage to one that it needs
            waiting = [stage for stage in graph if stage.addressing.rpartition(":")[2] in stages]
            found = set(waiting)
            while waiting:
                new = set(graph.predecessors(waiting.pop())) - found
                found |= new
                waiting += new
            return {stage.addressing.rpartition(":")[2] for stage in found}

    @contextmanager
    def edited(self, edits: Mapping[str, Edit]) -> Iterator[None]:
        """Change files while the block runs; each edit has to change something."""
        before = {self.root / name: (self.root / name).read_text() for name in edits}
        try:
            for (path, text), edit in zip(before.items(), edits.values(), strict=True):
                assert edit(text) != text, path
                path.write_text(edit(text))
            yield
        finally:
            for path, text in before.items():
                path.write_text(text)

    def stale_after(self, edits: Mapping[str, Edit]) -> set[str]:
        with self.edited(edits):
            return self.stale()

    def stale_with(self, change: Callable[[dict[str, Any]], None]) -> set[str]:
        before = (self.root / "params.yaml").read_text()
        self.configure(change)
        assert params.load(self.root / "params.yaml")
        found = self.stale()
        (self.root / "params.yaml").write_text(before)
        return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("project"))
    project.first_run = project.repro()
    return project


def test_all_stages_run_with_every_kind_of_model_and_without_a_network(project: Project) -> None:
    before = {"code", "complete-models", "simulate", "pack@sample", "contact-sheet@sample", "folds"}
    assert project.first_run == before | jobs("train", *MODELS) | {"reference"} | jobs("tta", *MODELS) | AFTER_TTA
    assert not project.calls.exists(), project.calls.read_text()


def test_a_finished_run_is_left_as_it_is(project: Project) -> None:
    """Neither another run nor the report drawn again changes a byte that git or DVC records."""
    recorded = {path: path.read_bytes() for path in (project.root / "dvc.lock", project.root / "report.html")}
    assert project.repro() == set()
    assert {path: path.read_bytes() for path in recorded} == recorded
    with (project.root / "logs/times.csv").open("a") as file:
        file.write("score,,12345.0\n")
    assert project.repro("--force", "--single-item", "report") == {"report"}
    assert {path: path.read_bytes() for path in recorded} == recorded


def reword(text: str) -> str:
    """Change the docstring, add a comment, and change the messages of all errors."""
    text = text.replace('"""', '"""In other words: ', 1) + "\n# A remark.\n"
    return re.sub(r'(raise InputError\(\s*f?")', r"\1Oh dear: ", text)


def change(pattern: str, new: str) -> Edit:
    return lambda text: re.sub(pattern, new, text, count=1)


def test_words_and_the_core_rerun_nothing(project: Project) -> None:
    worded = ("models/attention", "training/loop", "sources/packing", "data/loader", "evaluation/thresholds")
    edits: dict[str, Edit] = {f"pipeline/{name}.py": reword for name in worded}
    edits |= {
        "pipeline/core/paths.py": change(r'RESUME = Path\("\.resume"\)', 'RESUME = Path(".states")'),
        "pipeline/core/params.py": change(r'description="', 'description="In other words: '),
        "pipeline/core/errors.py": change(r"EXAMPLES = 5", "EXAMPLES = 6"),
        "pipeline/core/progress.py": lambda text: text + "\nADDED = 1\n",
    }
    assert project.stale_after(edits) == set()


@pytest.mark.parametrize(
    ("file", "edit", "expected"),
    [
        (
            "models/attention",
            change(r"(?m)^class ", "ADDED = 1\n\n\nclass "),
            jobs("train", *MODELS) | jobs("tta", *MODELS) | {"reference"} | {f"explain@{model}" for model in MODELS},
        ),
        ("reporting/charts", change(r'"#[0-9A-Fa-f]{6}"', '"#123456"'), {"score", "report"}),
        ("reporting/pictures", lambda text: text + "\nADDED = 1\n", {"contact-sheet@sample", "report"}),
        ("evaluation/thresholds", lambda text: text + "\nADDED = 1\n", {"ensemble"}),
        ("data/fold_assignment", lambda text: text + "\nADDED = 1\n", {"folds", "score"}),
        ("sources/packing", lambda text: text + "\nADDED = 1\n", {"pack@sample"}),
    ],
)
def test_a_change_of_code_reruns_the_stages_that_import_it(
    project: Project, file: str, edit: Edit, expected: set[str]
) -> None:
    assert project.stale_after({f"pipeline/{file}.py": edit}) == expected


def test_a_change_of_parameters_reruns_the_stages_that_read_them(project: Project) -> None:
    shown = {"report"}  # it prints params.yaml

    def seed(settings: dict[str, Any]) -> None:
        settings["models"]["forest"]["seed"] = 7

    def views(settings: dict[str, Any]) -> None:
        settings["tta"]["views"] = ["identity"]

    def thresholds(settings: dict[str, Any]) -> None:
        settings["ensemble"]["thresholds"] = "global"

    def machine(settings: dict[str, Any]) -> None:
        settings["machine"].update(workers=0, predict_batch=7, save_minutes=1)

    def template(settings: dict[str, Any]) -> None:
        settings["templates"]["classical"].update(seed=7, size=64)

    def unused(settings: dict[str, Any]) -> None:
        settings["templates"]["network"].update(size=64, epochs=7)

    stale = project.stale_with(seed)
    assert stale == jobs("train", "forest") | {"reference", "ensemble", "score"} | shown
    assert project.downstream(stale) == stale | jobs("tta", "forest") | AFTER_TTA
    stale = project.stale_with(views)
    assert stale == jobs("tta", *MODELS) | shown
    assert project.downstream(stale) == stale | AFTER_TTA
    stale = project.stale_with(thresholds)
    assert stale == {"ensemble"} | shown
    assert project.downstream(stale) == AFTER_TTA
    assert project.stale_with(machine) == shown
    assert project.stale_with(template) == jobs("train", "forest") | shown
    assert project.stale_with(unused) == shown  # the network has its own size and epochs


def test_folds_and_submit_do_not_depend_on_the_images_themselves(project: Project) -> None:
    path = project.root / "data/packed/images/sample.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    reading = {"contact-sheet@sample", "reference", "report"} | jobs("train", *MODELS) | jobs("tta", *MODELS)
    assert project.stale() == {"pack@sample"} | reading | {f"explain@{model}" for model in MODELS}
    path.write_bytes(content)
    assert project.stale() == set()


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
    project.run(sys.executable, "-m", "pipeline", "predict", "data/sample", "--out", "predictions.csv")
    predicted = pd.read_csv(project.root / "predictions.csv", dtype={"id": str}).set_index("id")["labels"]
    submission = pd.read_csv(project.root / "submission.csv", dtype=str).set_index("Id")["Predicted"]
    ids = predicted[submission.index].map(lambda names: [LABELS.index(name) for name in names.split("; ")])
    assert ids.map(format_target).tolist() == submission.tolist()


def test_no_saved_states_are_left(project: Project) -> None:
    assert not list((project.root / ".resume/train").iterdir())


def test_the_report_is_whole(project: Project) -> None:
    report = (project.root / "report.html").read_text()
    assert all(f'<section id="{section}">' in report for section in ("score", "labels", "errors", "attention", "run"))


def test_the_summary_names_what_was_written_and_how_long_it_took(project: Project) -> None:
    summary = project.run(sys.executable, "-m", "pipeline", "summary")
    for word in ("submission.csv", "metrics.json", "macro-F1", "by fold", "test, single fold", "train", "tta"):
        assert word in summary


def test_a_program_that_asks_for_the_status_all_the_time_disturbs_nothing(project: Project) -> None:
    before, path = project.stale(), project.root / "params.yaml"
    assert not before
    parameters = path.read_text()
    project.configure(lambda settings: settings["models"]["net"].update(seed=5))
    asking = subprocess.Popen(
        "until [ -e blocked/stop ]; do dvc status --quiet; dvc metrics show; dvc dag; python -m pipeline summary; done",
        shell=True,  # a loop
        cwd=project.root,
        env=os.environ | project.variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        ran = project.run("dvc", "--wait-for-lock", "repro")
        assert asking.poll() is None
    finally:
        # A killed one would leave its locks behind.
        (project.root / "blocked/stop").touch()
        asking.wait()
    assert ran.count("Running stage 'train@net-0'") == ran.count("Running stage 'train@net-1'") == 1
    assert not project.stale()
    assert not list((project.root / ".resume/train").glob("*"))
    path.write_text(parameters)
    project.repro()
    assert not project.stale()


@pytest.mark.parametrize(
    ("moved", "stage"),
    [
        (("data/packed", "data/sample"), "pack@sample"),
        (("models", "blend", "weights", ".resume", ".dvc/cache"), "train@forest-0"),
    ],
)
def test_what_is_large_can_be_moved_to_another_disk(
    project: Project, tmp_path: Path, moved: tuple[str, ...], stage: str
) -> None:
    for name in moved:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.move(project.root / name, tmp_path / name)
        (project.root / name).symlink_to(tmp_path / name)
    try:
        assert project.repro("--force", "--single-item", stage) == {stage}
        assert project.repro() == set()
        assert all((project.root / name).is_symlink() for name in moved)
    finally:
        for name in moved:
            (project.root / name).unlink()
            shutil.move(tmp_path / name, project.root / name)


def test_a_parameter_that_changes_while_a_stage_runs_is_not_recorded_with_the_old_result(project: Project) -> None:
    before, path = project.stale(), project.root / "params.yaml"
    assert not before
    parameters = path.read_text()
    edit = {"EDIT_STAGE": "pipeline.stages.ensemble", "EDIT": "params.yaml|shrinkage: 5|shrinkage: 20"}
    project.configure(lambda settings: settings["ensemble"].update(thresholds="global"))
    project.variables |= edit
    try:
        output = project.run("dvc", "repro", code=255)
    finally:
        for name in edit:
            del project.variables[name]
    assert "params.yaml: ensemble: changed while this stage ran" in output
    assert "Traceback" not in output
    assert "ensemble" in project.stale()
    assert "ensemble" in project.repro()
    assert not project.stale()
    path.write_text(parameters)
    project.repro()
    assert not project.stale()


def test_a_typo_in_params_ends_the_stage_with_its_name(project: Project) -> None:
    with project.edited({"params.yaml": change("resamples:", "resample:")}):
        output = project.run(sys.executable, "-m", "pipeline.stages.submit", code=1)
    assert "score.resample: unknown key; allowed here: resamples" in output
    assert "Traceback" not in output
