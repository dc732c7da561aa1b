"""Whether optional packages are installed."""

import importlib.util

from pipeline.core.errors import InputError


def check_installed(needed_by: str, packages: tuple[str, ...], requirements: str) -> None:
    """Check that packages are installed.

    Args:
        needed_by: what needs them, as the message begins.
        packages: their import names.
        requirements: the file that lists them.

    Raises:
        InputError: one is missing.
    """
    missing = [name for name in packages if not _is_there(name)]
    if missing:
        raise InputError(f"{needed_by} needs {', '.join(missing)}: pip install -r {requirements} -c requirements.lock")


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of the package that contains it
        return False
