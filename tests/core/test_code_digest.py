"""Digests of code: comments, docstrings and messages do not change them; whatever can change a result does."""

import ast
import io
import re
import shutil
import subprocess
import textwrap
import tokenize
from pathlib import Path

import grimp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import code_digest
from pipeline.core.code_digest import describe, imported_modules, of_module
from pipeline.stages import code

ROOT = Path(__file__).parents[2]
GRAPH = grimp.build_graph("pipeline", cache_dir=None)
STAGES = sorted(f"pipeline.stages.{path.stem}" for path in Path("pipeline/stages").glob("[a-z]*.py"))
DIGESTED = sorted(path for path in Path("pipeline").rglob("*.py") if Path("pipeline/core") not in path.parents)

CODE = '''
"""A module."""

import math
from pathlib import Path

from pipeline.core.errors import InputError

LIMIT = 3
"""The largest number."""
NAMES = {"one": 1}


@cached
def read(path: Path, scale: float = 0.5) -> float:
    """Read a number."""
    remedy = "write it again"
    if not path.exists():
        raise InputError(f"{path} is missing: {remedy}")
    text = path.read_text(encoding="utf-8")
    say("read " + path.name)
    print(f"{path} was read")
    if text == "none":
        raise ValueError("nothing there")
    problem = Problem(path.name, "too large")
    for item in track(NAMES, "counting"):
        text += item
    return math.sqrt(float(text) * scale) if len(text) < LIMIT else NAMES["one"]
'''


def digest(code: str) -> str:
    return describe(ast.parse(code))


def edited(old: str, new: str) -> str:
    assert CODE.count(old) == 1, old
    return CODE.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""', '"""What it does,\n\nand how."""'),
        ('"""A module."""\n', ""),
        ('"""The largest number."""', '"""At most so many."""'),
        ('"""The largest number."""\n', ""),
        ('    """Read a number."""\n', '    """Read it.\n\n    Raises:\n        InputError: it is missing.\n    """\n'),
        ("LIMIT = 3\n", "LIMIT = 3  # digits\n"),
        ("    if not path.exists():\n", "    # Not yet written.\n\n    if not path.exists():\n"),
        ("NAMES = {", "\n\n\nNAMES = {"),
        ("path: Path, scale: float = 0.5)", "\n    path: Path,\n    scale: float = 0.5,\n)"),
        ('{"one": 1}', "{'one': 1}"),
        ("float(text) * scale", "(float(text) * (scale))"),
        ("0.5", "5e-1"),
        ('f"{path} is missing: {remedy}"', 'f"there is no {path!s}: {remedy}, please"'),
        ('f"{path} is missing: {remedy}"', '"it is missing"'),
        ('"nothing there"', '"the file is empty"'),
        ('"write it again"', 'f"write {path} again"'),
        ('"read " + path.name', '"have read " + path.name'),
        ('f"{path} was read"', 'f"{path}: read"'),
        ('"too large"', '"larger than allowed"'),
        ('"counting"', 'f"counting {scale}"'),
    ],
)
def test_what_no_result_depends_on_changes_no_digest(old: str, new: str) -> None:
    assert digest(edited(old, new)) == digest(CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ("LIMIT = 3", "LIMIT = True"),
        ("LIMIT = 3", "LIMIT = None"),
        ("LIMIT = 3", "LIMIT: int = 3"),
        ("scale: float = 0.5", "scale: float = 0.25"),
        ("scale: float = 0.5", "scale: float"),
        ("scale: float = 0.5", "*, scale: float = 0.5"),
        ("* scale", "+ scale"),
        ("< LIMIT", "<= LIMIT"),
        ("if not path", "if path"),
        ("math.sqrt(", "math.exp("),
        ("def read(", "def load("),
        ("NAMES = {", "TITLES = {"),
        ('{"one": 1}', '{"two": 1}'),
        ('NAMES["one"]', 'NAMES["two"]'),
        ('encoding="utf-8"', 'encoding="ascii"'),
        ('text == "none"', 'text == "nothing"'),
        ("track(NAMES, ", "track(sorted(NAMES), "),
        ("Problem(path.name", "Problem(path.stem"),
        ("raise InputError(", "raise KeyError("),
        ("        raise ValueError", "        return 0\n        raise ValueError"),
        ("    text += item\n", "    pass\n"),
        ("@cached\n", ""),
        ("@cached\n", "@cached(1)\n"),
        ("import math\n", "import cmath as math\n"),
        ("import math\n", ""),
        ("from pathlib import Path\n", "from pathlib import PurePath as Path\n"),
    ],
)
def test_what_a_result_can_depend_on_changes_the_digest(old: str, new: str) -> None:
    assert digest(edited(old, new)) != digest(CODE)


def comment_places(text: str) -> list[int]:
    """Lines before which a comment can be inserted: none within a string of several lines."""
    inside = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.STRING
        for line in range(token.start[0], token.end[0])
    }
    return [line for line in range(len(text.splitlines()) + 1) if line not in inside]


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_comments_between_any_lines_change_no_digest(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(DIGESTED)).read_text(encoding="utf-8")
    places = data.draw(st.sets(st.sampled_from(comment_places(text)), min_size=1))
    words = data.draw(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=20))
    lines = text.splitlines()
    for place in sorted(places, reverse=True):
        lines[place:place] = ["", f"# {words}"]
    assert digest("\n".join(lines)) == digest(text)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_other_number_changes_the_digest(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(DIGESTED)).read_text(encoding="utf-8")
    tree = ast.parse(text)
    numbers = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and type(node.value) in (int, float)]
    in_messages = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if isinstance(part, ast.Constant)
    }
    numbers = [node for node in numbers if id(node) not in in_messages]
    if numbers:
        before, node = describe(tree), data.draw(st.sampled_from(numbers))
        assert isinstance(node.value, int | float)
        node.value += 1
        assert describe(tree) != before


@pytest.mark.parametrize("stage", STAGES)
def test_the_modules_of_a_stage_are_its_import_closure(stage: str) -> None:
    closure = {stage, *GRAPH.find_upstream_modules(stage)}
    files = {name for name in closure if not Path(*name.split(".")).is_dir()}
    expected = {name for name in files if not name.startswith("pipeline.core.")}
    assert imported_modules(stage) == expected
    assert [line.split()[0] for line in of_module(stage).splitlines()] == sorted(expected)


def test_packages_have_no_code_that_a_digest_would_miss() -> None:
    for path in Path("pipeline").rglob("__init__.py"):
        if path != Path("pipeline/__init__.py"):
            assert digest(path.read_text(encoding="utf-8")) == digest('"""A docstring."""'), path
    body = ast.parse(Path("pipeline/__init__.py").read_text(encoding="utf-8")).body
    code = [ast.unparse(node) for node in body if not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call)]
    assert [re.sub(r"'[\d.]+'$", "'...'", line) for line in code] == [
        "import os",
        "__version__ = '...'",  # in the description of a weight file, which nothing computes with
        "os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')",
        "os.environ.setdefault('PYTORCH_ENABLE_MPS_FALLBACK', '1')",
    ]


def test_a_digest_line_changes_with_its_module_and_not_with_the_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(**files: str) -> None:
        for name, text in files.items():
            path = tmp_path / "pipeline" / f"{name.replace('_', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text), encoding="utf-8")

    monkeypatch.setattr(code_digest, "ROOT", tmp_path)
    write(a="from pipeline import b\nfrom pipeline.core.c import LABELS\n", b="def f():\n    import pipeline.d\n")
    write(d="D = 1\n", core_c="from pipeline import e\nLABELS = 1\n", e="E = 1\n", f="import pipeline.a\n")
    before = of_module("pipeline.a").splitlines()
    assert [line.split()[0] for line in before] == ["pipeline.a", "pipeline.b", "pipeline.d"]
    write(core_c="from pipeline import e\nLABELS = 2\n", f="F = 2\n", d="# one\nD = 1\n")
    assert of_module("pipeline.a").splitlines() == before
    write(d="D = 2\n")
    after = of_module("pipeline.a").splitlines()
    assert after[:2] == before[:2]
    assert after[2] != before[2]


def test_fields_that_a_newer_python_adds_change_no_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(CODE)
    for kind in (ast.FunctionDef, ast.ClassDef, ast.Constant, ast.FormattedValue):
        monkeypatch.setattr(kind, "_fields", (*kind._fields, "new_list", "new_value"))
    tree = ast.parse(CODE)
    for node in ast.walk(tree):
        vars(node).update(new_list=[], new_value=None)
    assert "new_list" in dict(ast.iter_fields(next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))))
    assert describe(tree) == before
    assert "type_params" not in before


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_the_digest_is_the_same_for_every_python(version: str) -> None:
    python = shutil.which(f"python{version}")
    if python is None or subprocess.run([python, "--version"], capture_output=True, check=False).returncode:
        pytest.skip(f"no Python {version} here")
    program = "import sys; from pipeline.core.code_digest import of_module; [print(of_module(s)) for s in sys.argv[1:]]"
    found = subprocess.run([python, "-B", "-c", program, *STAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "".join(f"{of_module(stage)}\n" for stage in STAGES)


def test_what_a_digest_takes_for_a_message_is_one() -> None:
    """The names in ``MESSAGES`` mean what they say in every module, and no data is named by a string among them."""
    known = {"InputError": "errors", "Problem": "errors", "say": "progress", "track": "progress", "count": "progress"}
    assert {*known, "print"} == code_digest.MESSAGES
    for path in DIGESTED:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {
            alias.asname or alias.name: node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            name = node.func.id
            if name in known:
                assert imported.get(name) == f"pipeline.core.{known[name]}", f"{path}: another {name}"
            if name == "track":
                strings = [part for part in ast.walk(node.args[0]) if isinstance(getattr(part, "value", None), str)]
                assert not strings, f"{path}: name the items before track(), where a digest sees the string"
            if name == "print":
                files = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == "file"]
                assert files in ([], ["sys.stderr"]), f"{path}: a file that is printed to is a result"


def test_no_stage_computes_with_its_docstrings() -> None:
    reading = {str(path) for path in DIGESTED if "__doc__" in path.read_text(encoding="utf-8")}
    assert reading <= {"pipeline/commands/show_params.py", "pipeline/export/standalone.py"}
    assert not any(
        name.startswith(("pipeline.commands", "pipeline.export"))
        for stage in STAGES
        for name in imported_modules(stage)
    )


def test_the_stage_writes_the_digests_of_all_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {
        f"{stage.rpartition('.')[2]}.txt": of_module(stage) for stage in STAGES if stage != "pipeline.stages.code"
    }
    monkeypatch.chdir(tmp_path)
    code.main()
    assert {path.name: path.read_text(encoding="utf-8") for path in Path("code-digests").iterdir()} == expected


def test_copies_that_other_programs_make_of_a_stage_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = ("._train.py", "train.sync-conflict-20240501-101112.py", "train (Ana's conflicted copy).py", "train 2.py")
    for name in ("train.py", *copies):
        (tmp_path / name).write_bytes(b"\0 not Python")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(code, "__file__", str(tmp_path / "code.py"))
    code.main()
    assert [path.name for path in Path("code-digests").iterdir()] == ["train.txt"]
