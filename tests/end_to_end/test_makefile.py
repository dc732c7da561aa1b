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


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder with what make reads, in which nothing is installed, so that make asks no program about its settings."""
    for name in ("Makefile", "requirements.txt", "requirements-cluster.txt", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize(("gpus", "side_by_side"), [("0", False), ("1", False), ("2", True), ("8", True)])
def test_make_repro_trains_side_by_side_where_there_are_several_gpus(bare: Path, gpus: str, side_by_side: bool) -> None:
    told = would_run("repro", f"GPUS={gpus}", cwd=bare)
    assert ("-m pipeline train-parallel" in told) == side_by_side
    assert told.rstrip().endswith("-m pipeline summary")
    if side_by_side:
        assert told.index("train-parallel") < told.index("dvc --wait-for-lock repro")


EIGHT = "".join(f"echo 'GPU {number}: NVIDIA H100 (UUID: GPU-{number})'\n" for number in range(8))


@pytest.mark.parametrize(
    ("said", "visible", "side_by_side"),
    [
        ("", None, False),
        ("echo 'GPU 0: NVIDIA T4 (UUID: GPU-0)'", None, False),
        (EIGHT, None, True),
        (EIGHT, "3", False),
        (EIGHT, "", False),
        (EIGHT, "-1", False),
        (EIGHT, "2,-1,3", False),
        (EIGHT, "0, 1", True),
        (EIGHT, "GPU-3,GPU-5", True),
        ("echo 'GPU 0: NVIDIA A100'; echo '  MIG 1g.5gb Device 0:'; echo '  MIG 1g.5gb Device 1:'", None, False),
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", "0,1", False),
    ],
)
def test_the_gpus_that_a_user_may_use_are_counted(
    bare: Path, said: str, visible: str | None, side_by_side: bool
) -> None:
    (bare / "nvidia-smi").write_text(f"#!/bin/sh\n{said}\n")
    (bare / "nvidia-smi").chmod(0o755)
    free = {key: value for key, value in os.environ.items() if key not in ("GPUS", "CUDA_VISIBLE_DEVICES")}
    allowed = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    told = would_run("repro", cwd=bare, env=free | allowed | {"PATH": f"{bare}{os.pathsep}{os.environ['PATH']}"})
    assert ("-m pipeline train-parallel" in told) == side_by_side


def test_a_python_that_is_too_old_is_refused_before_anything_is_made(bare: Path) -> None:
    (bare / "python3").write_text("#!/bin/sh\nexit 1\n")  # what the check of the version answers
    (bare / "python3").chmod(0o755)
    kept = {key: value for key, value in os.environ.items() if key not in FROM_AN_OUTER_MAKE}
    command = ["make", f"PYTHON={bare / 'python3'}", ".venv/run.stamp"]
    done = subprocess.run(command, cwd=bare, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is older than 3.11: name a newer one, as in 'make repro PYTHON=python3.12'" in done.stdout
    assert not (bare / ".venv").exists()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ""),
        ({"PIP_INDEX_URL": "https://mirror.example/simple"}, "UV_DEFAULT_INDEX='https://mirror.example/simple'"),
        ({"PIP_INDEX_URL": "https://a.example", "UV_DEFAULT_INDEX": "https://b.example"}, "https://b.example"),
        ({"PIP_TRUSTED_HOST": "one.example two.example"}, "UV_INSECURE_HOST='one.example two.example'"),
        ({"PIP_CERT": "/etc/our.pem"}, "SSL_CERT_FILE='/etc/our.pem'"),
        ({"PIP_CONFIG_FILE": "pip.conf"}, "UV_DEFAULT_INDEX='https://filed.example/simple'"),
        ({"UV_INDEX_URL": "https://old.example", "PIP_INDEX_URL": "https://a.example"}, "='https://old.example'"),
        (
            {"PIP_CONFIG_FILE": "pip.conf", "PIP_INDEX_URL": "https://me:a%20b@m.example/"},
            "='https://me:a%20b@m.example/'",
        ),
        ({"SSL_CERT_FILE": "/etc/a.pem", "PIP_CERT": "/etc/b.pem"}, "SSL_CERT_FILE='/etc/a.pem'"),
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
