"""``python -m pipeline app``: serves until Ctrl-C, at this machine alone unless told otherwise."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from pipeline.commands import app
from pipeline.core.errors import InputError
from tests.fixtures.served import write_served_run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_served_run()
    return root


def documented() -> list[str]:
    """The commands by which the documents start the page, without their comments."""
    texts = [(ROOT / name).read_text() for name in ("README.md", "docs/recipes.md")]
    found = [re.findall(r"^\$ python -m pipeline app *([^#\n]*)", text, re.MULTILINE) for text in texts]
    assert all(found)
    return sorted({options.strip() for one in found for options in one})


@pytest.mark.parametrize("options", documented())
def test_it_serves_as_documented_until_it_is_interrupted(folder: Path, options: str) -> None:
    command = [sys.executable, "-m", "pipeline", "app", *options.split(), "--port", "0"]
    warned = "0.0.0.0" in options
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        assert address.startswith("http://0.0.0.0:" if warned else "http://127.0.0.1:")
        with urllib.request.urlopen(address.replace("0.0.0.0", "127.0.0.1") + "examples/0", timeout=60) as answer:
            assert "most similar training images" in answer.read().decode()
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in said[1]
    assert ("whoever can reach 0.0.0.0 can use this page" in said[1]) == warned


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "absent"], "absent: no models found"),
        (["--limit-mb", "0"], "--limit-mb 0: give at least 1"),
        (["--port", "-1"], "cannot serve at 127.0.0.1, port -1"),
    ],
)
def test_bad_options_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match=message):
        app.main(["--port", "0", *options])


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(InputError, match=r"the page needs aiohttp: pip install -r requirements-app\.txt"):
        app.main([])


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("box", False)]
)
def test_which_hosts_only_this_machine_reaches(host: str, local: bool) -> None:
    assert app.is_local(host) == local
