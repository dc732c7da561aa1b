"""What `make` would run, without running it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FROM_AN_OUTER_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES")


def would_run(*arguments: str, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    """What make would run; the same whether or not the tests themselves were started by make."""
    kept = {key: value for key, value in (env or dict(os.environ)).items() if key not in FROM_AN_OUTER_MAKE}
    command = ["make", "-n", *arguments]
    return subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(("gpus", "side_by_side"), [("0", False), ("1", False), ("2", True), ("8", True)])
def test_make_repro_trains_side_by_side_where_there_are_several_gpus(gpus: str, side_by_side: bool) -> None:
    told = would_run("repro", f"GPUS={gpus}")
    assert ("-m pipeline train-parallel" in told) == side_by_side
    assert told.rstrip().endswith("-m pipeline summary")
    if side_by_side:
        assert told.index("train-parallel") < told.index("dvc --wait-for-lock repro")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ""),
        ({"PIP_INDEX_URL": "https://mirror.example/simple"}, "UV_DEFAULT_INDEX='https://mirror.example/simple'"),
        ({"PIP_INDEX_URL": "https://a.example", "UV_DEFAULT_INDEX": "https://b.example"}, "https://b.example"),
        ({"PIP_TRUSTED_HOST": "one.example two.example"}, "UV_INSECURE_HOST='one.example two.example'"),
        ({"PIP_CERT": "/etc/our.pem"}, "SSL_CERT_FILE='/etc/our.pem'"),
        ({"PIP_CONFIG_FILE": "pip.conf"}, "UV_DEFAULT_INDEX='https://filed.example/simple'"),
    ],
)
def test_what_pip_is_told_about_mirrors_is_passed_on(tmp_path: Path, settings: dict[str, str], expected: str) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    pip = f'#!/bin/sh\nexec {sys.executable} -m pip "$@"\n'
    (tmp_path / ".venv/bin/pip").write_text(pip)
    (tmp_path / ".venv/bin/pip").chmod(0o755)
    (tmp_path / ".venv/bin/uv").touch()
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://filed.example/simple\n")
    for name in ("Makefile", "requirements.txt", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    free = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "UV_", "SSL_"))}
    told = would_run(".venv/run.stamp", cwd=tmp_path, env=free | {"PIP_CONFIG_FILE": os.devnull} | settings)
    [command] = [line for line in told.splitlines() if "uv pip install" in line]
    assert expected in command
    assert expected or command.startswith(".venv/bin/uv pip install")
