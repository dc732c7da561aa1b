"""Whether the packages of requirements-fetch.txt are installed."""

import importlib.util

from pipeline.core.errors import InputError


def check_installed(package: str) -> None:
    """Check that a package is installed.

    Raises:
        InputError: it is not.
    """
    if importlib.util.find_spec(package) is None:
        raise InputError(
            f"the package {package} is not installed: run pip install -r requirements-fetch.txt -c requirements.lock"
        )
