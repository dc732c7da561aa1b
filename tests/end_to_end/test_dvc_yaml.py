"""dvc.yaml says of each stage what its code really imports, so that a change of code reruns what it can affect."""

import re
from pathlib import Path
from typing import Any

import grimp
import pytest
from ruamel.yaml import YAML

GRAPH = grimp.build_graph("pipeline")
FREE = {"pipeline.core.params"}  # types only: every value stands in params.yaml, which DVC tracks


def stages() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for file in (Path("dvc.yaml"), Path("data/sample/dvc.yaml")):
        found |= YAML(typ="safe").load(file)["stages"]
    return found


def module(stage: dict[str, Any]) -> str:
    match = re.match(r"python -m (\S+)", stage["cmd"])
    assert match, stage["cmd"]
    return match.group(1)


def closure(name: str) -> set[str]:
    """The files of a module and of everything of ours that it imports, packages without code left out."""
    modules = {name} | GRAPH.find_upstream_modules(name)
    files = {Path(*dotted.split(".")).with_suffix(".py") for dotted in modules - FREE}
    return {str(file) for file in files if file.is_file()}


@pytest.mark.parametrize("name", stages())
def test_deps_are_the_import_closure(name: str) -> None:
    stage = stages()[name]
    listed = [dependency for dependency in stage["deps"] if dependency.endswith(".py")]
    assert sorted(listed) == sorted(closure(module(stage)))


def test_every_stage_module_is_in_the_pipeline() -> None:
    modules = {Path(file).stem for file in Path("pipeline/stages").glob("*.py")} - {"__init__"}
    assert {module(stage).rpartition(".")[2] for stage in stages().values()} == modules


def test_only_score_reads_the_truth_of_the_test_set() -> None:
    naming = {str(file) for file in Path("pipeline").rglob("*.py") if '"test_truth.csv"' in file.read_text()}
    assert naming == {
        "pipeline/stages/simulate.py",  # writes it
        "pipeline/stages/score.py",
        "pipeline/sources/samples.py",  # lists it among the files to leave alone
    }


def test_what_is_read_beside_code_is_a_dependency_too() -> None:
    listed = [str(dependency) for stage in stages().values() for dependency in stage["deps"]]
    beside = [str(file) for file in Path("pipeline").rglob("*.*") if file.suffix not in (".py", ".pyc")]
    assert len(beside) > 3
    assert [file for file in beside if not any(file.startswith(name.removeprefix("../../")) for name in listed)] == []
