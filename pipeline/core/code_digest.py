"""Digests of a module's code that ignore comments, docstrings and messages.

DVC compares files byte by byte: if stages depended on source files, fixing a typo in an error message would retrain
every network. Stages depend on these digests instead, which the stage ``code`` writes. Saved training states are also
tied to them.

A digest ignores comments and layout, docstrings, and strings in ``raise`` statements, in calls of the functions in
``MESSAGES`` and in assignments to a name in ``MESSAGE_NAMES``. The package ``pipeline.core`` is excluded, because no
result depends on it. The digest does not depend on the Python version.
"""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

EXEMPT = "pipeline.core"
"""Package without digests; tests/core/test_numbers_do_not_depend_on_core.py checks that no result depends on it."""

MESSAGES = frozenset({"InputError", "Problem", "say", "print", "track", "count"})
"""Functions whose string arguments are messages to the user."""

MESSAGE_NAMES = frozenset({"remedy", "message", "REMEDY"})
"""Variables and keyword arguments that contain part of a message."""


def of_module(name: str) -> str:
    """One line per module that ``name`` imports, including itself: the module's name and digest."""
    return "".join(f"{module} {_digest(_file(module))}\n" for module in sorted(imported_modules(name)))


def imported_modules(name: str) -> set[str]:
    """All modules of the project that a module imports, directly or not, including itself but not ``EXEMPT``."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module not in found and not f"{module}.".startswith(f"{EXEMPT}."):
            found.add(module)
            waiting += _imports(module)
    return {module for module in found if _file(module).name != "__init__.py"}


def _imports(module: str) -> Iterator[str]:
    """The modules of the project that are named in the import statements of a module."""
    for node in ast.walk(_tree(_file(module))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "pipeline")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "pipeline":
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if _exists(submodule) else node.module


def _exists(module: str) -> bool:
    path = ROOT.joinpath(*module.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


def _digest(path: Path) -> str:
    return hashlib.sha256(describe(_tree(path)).encode()).hexdigest()[:16]


def describe(node: object, *, in_message: bool = False) -> str:
    """Serialise a node of the syntax tree, without the parts that a digest ignores.

    Unlike ``ast.dump``, the text is the same in all Python versions, because fields without a value are omitted.
    """
    if isinstance(node, list):
        return "[" + ",".join(describe(item, in_message=in_message) for item in node if not _is_docstring(item)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    in_message = in_message or _is_message(node)
    if in_message and (isinstance(node, ast.JoinedStr) or isinstance(getattr(node, "value", None), str)):
        return "text"
    fields = (
        f"{name}={describe(value, in_message=in_message)}"
        for name, value in ast.iter_fields(node)
        if value not in (None, []) and name not in ("ctx", "kind", "type_comment", "type_ignores")
    )
    return f"{type(node).__name__}({','.join(fields)})"


def _is_docstring(node: object) -> bool:
    """Whether a node is a string expression statement: a docstring, or the description of a constant."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_message(node: ast.AST) -> bool:
    match node:
        case ast.Raise():
            return True
        case ast.Call(func=ast.Name(id=name)):
            return name in MESSAGES
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.keyword(arg=str(name)):
            return name in MESSAGE_NAMES
    return False
