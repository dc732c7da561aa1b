"""What a module computes, as text that a comment, a docstring or a message does not change.

DVC tracks files by their bytes, so depending on the code itself would train every network again for a typo in an error
message. Stages depend on these digests instead (the stage ``code`` writes them), and so do saved states.

Left out of a digest: comments and layout; docstrings; strings in ``raise`` statements, in calls of
the functions in ``MESSAGES``, and in assignments to a name in ``MESSAGE_NAMES``; and the package ``pipeline.core``, on
which no result depends. The digest is the same for every Python version that can run the code.
"""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

EXEMPT = "pipeline.core"
"""tests/core/test_numbers_do_not_depend_on_core.py proves the exemption."""

MESSAGES = frozenset({"InputError", "Problem", "say", "print", "track", "count"})
"""Functions whose string arguments are only read by people."""

MESSAGE_NAMES = frozenset({"remedy", "message", "REMEDY"})
"""Variables that hold part of a message."""


def of_module(name: str) -> str:
    """A line per module that ``name`` imports, itself included: its name and the digest of what it computes."""
    return "".join(f"{module} {_digest(_file(module))}\n" for module in sorted(imported_modules(name)))


def imported_modules(name: str) -> set[str]:
    """All modules of the project that a module imports, directly or not, itself included, without ``EXEMPT``."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module not in found and not f"{module}.".startswith(f"{EXEMPT}."):
            found.add(module)
            waiting += _imports(module)
    return {module for module in found if _file(module).name != "__init__.py"}


def _imports(module: str) -> Iterator[str]:
    """The modules of the project that the import statements of a module name."""
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
    """The code below a node of the syntax tree as text, without what a digest leaves out.

    ``ast.dump`` would do, but its text differs between versions of Python: here, fields without a value are left out.
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
    """Whether it is a string that stands alone: a docstring, or the description of a constant above it."""
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
