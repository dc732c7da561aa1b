"""dvc.yaml names what each stage reads, so that a change reruns what it can affect and nothing else."""

import re
import shutil
import subprocess
from pathlib import Path, PurePath
from typing import Any

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from pipeline.core import params, paths, stray_files

FILES = (Path("dvc.yaml"), Path("data/sample/dvc.yaml"))
ROOT = Path(__file__).parents[2]
LONGEST = 200


def stages() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for file in FILES:
        found |= YAML(typ="safe").load(file)["stages"]
    return found


def module(stage: dict[str, Any]) -> str:
    """The name of the module in pipeline/stages/ that a stage runs."""
    match = re.fullmatch(r"python -m pipeline\.stages\.(\w+)( --\w+ \$\{item\.\w+\})*", stage["cmd"])
    assert match, stage["cmd"]
    return match.group(1)


def dependencies(stage: dict[str, Any]) -> list[str]:
    return [dependency if isinstance(dependency, str) else next(iter(dependency)) for dependency in stage["deps"]]


def test_every_stage_module_is_run_by_a_stage() -> None:
    modules = {file.stem for file in Path("pipeline/stages").glob("*.py")} - {"__init__"}
    run = [module(stage) for stage in stages().values()]
    assert sorted(run) == sorted(modules)


@pytest.mark.parametrize("name", sorted(set(stages()) - {"code"}))
def test_a_stage_depends_on_the_digest_of_its_code_and_on_no_code_itself(name: str) -> None:
    """That a digest covers all that the stage imports is tested beside it, in tests/core/test_code_digest.py."""
    stage = stages()[name]
    listed = dependencies(stage)
    assert [path for path in listed if path.startswith("code-digests/")] == [f"code-digests/{module(stage)}.txt"]
    ours = [path for path in listed if Path(path).parts[0] == "pipeline"]
    assert [path for path in ours if path.endswith(".py") or list(Path(path).rglob("*.py"))] == []


def test_the_digests_follow_from_the_package_alone() -> None:
    assert dependencies(stages()["code"]) == ["pipeline"]


def test_what_is_read_beside_code_is_a_dependency_too() -> None:
    listed = {path for stage in stages().values() for path in dependencies(stage)}
    files = (file for file in Path("pipeline").rglob("*.*") if file.suffix not in (".py", ".pyc"))
    beside = [str(file) for file in files if file.parts[1] != "app"]  # the page, which no stage reads
    assert len(beside) > 3
    assert [file for file in beside if not any(file.startswith(path) for path in listed - {"pipeline"})] == []


def test_folds_and_submit_read_the_index_without_the_images() -> None:
    for name in ("folds", "submit"):
        packed = [path for path in dependencies(stages()[name]) if path.startswith("data/packed")]
        assert packed == ["data/packed/index"]


def test_only_score_reads_the_truth_of_the_test_set() -> None:
    naming = {str(file) for file in Path("pipeline").rglob("*.py") if '"test_truth.csv"' in file.read_text()}
    assert naming == {
        "pipeline/stages/simulate.py",  # writes it
        "pipeline/stages/score.py",
        "pipeline/sources/samples.py",  # lists it among the files to leave alone
    }


def test_kaggles_scores_make_only_the_report_stale() -> None:
    reading = {name for name, stage in stages().items() if "submissions" in dependencies(stage)}
    assert reading == {"report"}
    assert paths.KAGGLE_SCORES.parent.name == "submissions"


def test_another_pre_trained_model_makes_no_encoder_stale() -> None:
    read = {key.removeprefix("pretrain.") for key in stages()["pretrain"]["params"]} - {"data.sources"}
    assert read == set(params.Pretrain.model_fields) - {"models"}


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # pygtrie, used by DVC itself
def test_pre_training_is_in_the_dag_only_where_a_model_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        ".dvcignore",
        "dvc.yaml",
        "params.yaml",
        ".dvc/config",
        "autoencoders/.gitignore",
        "submissions/.gitignore",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "--quiet"], check=True)

    def jobs() -> tuple[set[str], set[str]]:
        with Repo() as repo:
            graph = repo.index.graph
            names = {stage.addressing: stage for stage in graph}
            before_train = {stage.addressing for stage in graph.successors(names["train@cbam-320-0"])}
            return {name for name in names if name.startswith(("pretrain", "reconstructions"))}, before_train

    found, before_train = jobs()
    assert found == set()
    text = Path("params.yaml").read_text().replace("  models: []", "  models: [cbam-384]")
    Path("params.yaml").write_text(text)
    found, with_it = jobs()
    assert found == {"pretrain@cbam-384", "reconstructions@cbam-384"}
    assert with_it - before_train == {"pretrain@cbam-384"}


def test_the_file_can_be_read_in_one_sitting() -> None:
    assert len(Path("dvc.yaml").read_text().splitlines()) < LONGEST


def test_git_ignores_sources_and_dvc_sees_the_stage_of_the_simulated_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC leaves out stages in folders that git ignores, and reads ignore patterns a little differently than git."""
    for name in (".gitignore", ".dvcignore", "dvc.yaml", "params.yaml", "data/sample/dvc.yaml", ".dvc/config"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    ignored = ("data/kaggle/train/a_green.png", "data/kaggle/train.csv", "data/all.zip", "data/sample/competition.zip")
    for name in ignored:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    for name in (".venv", ".resume", "models", "history", "data/packed", "weights/large.safetensors", "data/linked"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).symlink_to("/larger/disk")
    shutil.copy(ROOT / "weights/.gitignore", "weights/.gitignore")
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run(["git", "add", "--all"], check=True)
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True)
    ours = {".dvc/config", ".dvcignore", ".gitignore", "dvc.yaml", "params.yaml", "weights/.gitignore"}
    assert set(listed.stdout.split()) == {"data/sample/dvc.yaml"} | ours
    with Repo() as repo:
        assert "data/sample/dvc.yaml:simulate" in {stage.addressing for stage in repo.index.stages}


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        (".DS_Store", False),
        ("._cells.safetensors", False),
        ("Thumbs.db", False),
        ("desktop.ini", False),
        (".nfs000000000123", False),
        ("#cells.yaml#", False),
        (".~lock.cells.csv#", False),
        ("cells.safetensors~", False),
        ("cells.safetensors:Zone.Identifier", False),
        ("Icon\r", False),
        ("Desktop.ini", False),
        ("cells (Ana's conflicted copy 2024-05-01).safetensors", False),
        ("cells.sync-conflict-20240501-101112-ABCDEFG.safetensors", False),
        ("resnet34.pth.crdownload", False),
        ("@eaDir/cells.safetensors/SYNOINDEX", False),
        ("lost+found/#123", False),
        ("#recycle/cells.safetensors", False),
        ("$RECYCLE.BIN/$R1.safetensors", False),
        (".snapshot/hourly.0/cells.safetensors", False),
        (".history/cells_20240501.yaml", False),
        ("Icons.safetensors", True),
        ("part.safetensors", True),
        ("mine.safetensors", True),
        ("mine.pth", True),
    ],
)
def test_what_a_desktop_leaves_behind_makes_nothing_stale(name: str, seen: bool) -> None:
    with Repo() as repo:
        ignored = repo.dvcignore.is_ignored_file(f"weights/{name}")
    assert ignored != seen
    assert stray_files.is_stray(PurePath("weights", name)) != seen


def test_dvc_ignores_the_files_of_other_programs_that_reading_ignores() -> None:
    lines = Path(".dvcignore").read_text().splitlines()
    listed = [line.removeprefix("\\") for line in lines if not line.startswith("# ")]
    patterns = [*stray_files.FOLDERS, *stray_files.FILES]
    assert [line for line in listed if line in patterns] == patterns
