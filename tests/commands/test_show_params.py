"""``python -m pipeline params``: every key with its meaning, its allowed values and the stages that read it."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from pydantic import BaseModel

from pipeline.commands import show_params
from pipeline.core.errors import InputError
from pipeline.core.params import KINDS, Params

SECTIONS = [name for name in Params.model_fields if name not in ("models", "templates")]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    show_params.main(arguments)
    return capsys.readouterr().out


@cache
def texts() -> dict[str, str]:
    """The text of each section and kind."""
    return dict(show_params.describe_sections())


def section_class(name: str) -> type[BaseModel]:
    found = KINDS.get(name) or Params.model_fields[name].annotation
    assert isinstance(found, type)
    assert issubclass(found, BaseModel)
    return found


def keys(section: type[BaseModel], indent: str = "  ") -> Iterator[tuple[str, bool]]:
    """Each key with its indentation, in the order of the file, and whether it is a group of keys."""
    for name, field in section.model_fields.items():
        group = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        yield f"{indent}{name}", group
        if group:
            assert isinstance(field.annotation, type)
            yield from keys(field.annotation, f"{indent}  ")


@pytest.mark.parametrize("name", [*SECTIONS, *KINDS])
def test_every_key_has_a_meaning_and_its_allowed_values(name: str) -> None:
    title, _, *lines = texts()[name].splitlines()
    assert re.match(rf"(models\.<name>, kind )?{name}: \S+", title)
    expected = list(keys(section_class(name)))
    for key, group in expected:
        start = f"{key}: " if group else f"{key}  ["
        number = next((number for number, line in enumerate(lines) if line.startswith(start)), None)
        assert number is not None, f"{key} is missing, or not where params.yaml has it"
        line, meaning = lines[number], lines[number + 1]
        if group:
            assert re.fullmatch(r" +\w+: \S+ .*\.", line)
        else:
            assert re.fullmatch(r" +\w+  \[(?!section\])\S.*\]", line)
            assert re.match(rf"{' ' * (len(key) - len(key.lstrip()) + 4)}\S+ \S+", meaning), f"{key} has no meaning"
        lines = lines[number + 1 :]
    leaves = re.findall(r"^ +\w+  \[", texts()[name], re.MULTILINE)
    assert len(leaves) == sum(not group for _, group in expected)


def test_one_section_or_all_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(texts()) == [*SECTIONS[:4], *KINDS, *SECTIONS[4:]]  # in the order of the file
    assert printed(capsys) == "\n\n".join(texts().values()) + "\n"
    assert printed(capsys, "frozen") == texts()["frozen"] + "\n"


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ("data", "sources  [list of text]"),
        ("folds", "near_duplicates  [integer >= 0, <= 256]"),
        ("folds", "ids  [list of integer >= 0]"),
        ("network", "attention  [none | channel | spatial | cbam | nonlocal | self]"),
        ("network", "loss  [{focal | bce | asymmetric | soft_f1 | lovasz: number > 0}]"),
        ("network", "alpha  [number >= 0, <= 1 | null]"),
        ("network", "widths  [list of integer >= 1 | null]"),
        ("network", "pretrained  [true | false | text]"),
        ("network", "learning_rate  [number > 0]"),
        ("frozen", "pretrained  [true | text]"),
        ("classical", "kind  [classical]"),
        ("machine", "workers  [integer >= 0 | auto]"),
        ("ensemble", "proportions  [{text: number >= 0, <= 1}]"),
    ],
)
def test_allowed_values_are_those_of_the_check(section: str, line: str) -> None:
    assert line in [text.strip() for text in texts()[section].splitlines()]


def test_the_stages_that_read_a_section_are_those_of_dvc_yaml() -> None:
    readers = {name: text.splitlines()[1].strip().removeprefix("read by: ") for name, text in texts().items()}
    assert readers["pack"] == "pack"
    assert readers["sample"] == "simulate"
    assert readers["tta"] == "tta"
    assert readers["data"].split(", ") == ["folds", "pretrain", "train", "tta", "score", "submit"]
    assert (
        readers["network"]
        == readers["frozen"]
        == readers["classical"]
        == "complete-models, train (its own model's section), reference, ensemble, score"
    )
    assert readers["machine"].startswith("no stage")


def test_only_the_check_is_done_if_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = Path("params.yaml").read_text()
    assert printed(capsys, "--check").splitlines() == ["params.yaml is valid: sources sample"]
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(committed.replace("pack:", "pak:", 1))
    with pytest.raises(InputError, match=r"pak: unknown key"):
        show_params.main(["--check"])


def test_an_unknown_section_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"no section modles.*data, sample, .*classical, pretrain, tta"):
        show_params.main(["modles"])


def test_a_folder_without_git_is_told_what_to_do_before_dvc_refuses_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not under git, .* run dvc config --local core\.no_scm true here"):
        show_params.check_git(tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    show_params.check_git(tmp_path)
    (tmp_path / "inside").mkdir()
    (tmp_path / ".git").mkdir()
    show_params.check_git(tmp_path / "inside")
