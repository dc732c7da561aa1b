"""What a step frees stays with the process; GPUs, compilers and cores that cannot be used are not."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from pipeline.core import hardware, processors
from pipeline.core.errors import InputError
from pipeline.models.network import compute_type

# Address space, not page faults: the kernels of some sandboxes count no faults.
STEP = """
import resource, sys, torch
from pathlib import Path
from pipeline.core.hardware import keep_freed_memory
torch.set_num_threads(1)  # a thread brings an arena of address space with it
if sys.argv[1] == "keep":
    keep_freed_memory()
def held():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() / 2**20
def step(size):
    return sum(float(part.sum()) for part in [torch.ones(size) for _ in range(16)])
step(1)
before = held()
step(2**20)  # 64 MB
print(held() - before)
"""


def kept_megabytes(how: str) -> float:
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-c", STEP, how]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="this is about glibc")
def test_freed_memory_is_used_again() -> None:
    assert kept_megabytes("leave") < 16
    assert kept_megabytes("keep") > 48


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if there were a GPU, for which the test sets its capability and the architectures torch was built for."""
    hardware._check_kernels.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    yield
    hardware._check_kernels.cache_clear()


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ((6, 0), ["sm_75", "sm_80", "sm_90"], False),  # P100
        ((7, 0), ["sm_75", "sm_80"], False),  # V100
        ((7, 5), ["sm_75", "sm_80"], True),  # T4
        ((8, 9), ["sm_75", "sm_86"], True),  # binaries of a lower minor version
        ((9, 0), ["sm_80", "sm_90a"], True),
        ((12, 0), ["sm_90", "compute_90"], True),  # compiled by the driver
        ((12, 0), ["sm_90", "sm_100"], False),
        ((5, 2), ["sm_50", "sm_60"], True),  # GTX 980
        ((3, 7), ["sm_50", "sm_60"], False),  # K80
        ((10, 0), ["sm_90a", "sm_100a", "sm_120f"], True),
        ((9, 0), ["gfx906", "gfx90a", "gfx942"], True),  # AMD
        ((9, 0), [], True),  # a build that does not tell
    ],
)
def test_a_gpu_without_kernels_is_refused_before_it_is_used(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], built: list[str], runs: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
    if runs:
        assert hardware.device().type == "cuda"
    else:
        with pytest.raises(
            InputError, match=r"no kernels for this GPU .*: install a build of torch for it, or set CUDA_VIS"
        ):
            hardware.device()


@pytest.mark.parametrize(("there", "device"), [(True, "mps"), (False, "cpu")])
def test_apples_gpu_is_used_where_torch_offers_it(monkeypatch: pytest.MonkeyPatch, there: bool, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: there)
    assert hardware.device().type == device
    assert not there or compute_type("auto") == torch.float32
    assert os.environ["PYTORCH_ENABLE_MPS_FALLBACK"] == "1"


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_without_bfloat16_computes_in_float16(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(hardware, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: native or including_emulation)
    assert compute_type("auto") == (torch.bfloat16 if native else torch.float16)
    assert compute_type("fp32") == torch.float32


@pytest.mark.parametrize(
    ("capable", "native"),
    [
        ({"amx_bf16": True}, True),
        ({"amx_bf16": False, "avx512_bf16": True}, True),
        ({"avx512_f": True}, False),
        ({}, False),
    ],
)
def test_a_processor_with_bfloat16_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, capable: dict[str, bool], native: bool
) -> None:
    monkeypatch.setattr(hardware, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capable)
    assert compute_type("auto") == (torch.bfloat16 if native else torch.float32)


def test_on_macos_no_process_is_forked_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processors.loaders("auto", 2) == processors.workers("auto", 2)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert processors.loaders("auto") == 0
    assert processors.loaders(3) == 3
    assert processors.workers("auto") > 0  # packing and simulating start processes of their own kind


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a compiler named ``mine`` into PATH, alone: a shell script in which {} is the real one."""
    real = shutil.which("g++") or shutil.which("clang++")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(hardware, "device", lambda: torch.device("cpu"))

    def write(script: str) -> None:
        if real is None:
            pytest.skip("no compiler here")
        (tmp_path / "mine").write_text(f"#!/bin/sh\n{script.format(real)}\n")
        (tmp_path / "mine").chmod(0o755)

    return write


NO_HEADERS = "echo 'fatal error: Python.h: No such file or directory' >&2; exit 1"
NO_LIBRARY = "echo 'ld: error: cannot find -lstdc++' >&2; exit 1"
NOTHING = ": > /dev/null"


@pytest.mark.parametrize(
    ("script", "setting", "message"),
    [
        ("", None, r"compile: true needs a compiler, and there is no \S+ in PATH: install it"),
        ("", "theirs", r"compile: true needs a compiler, and there is no theirs in PATH: install it"),
        ("", " ", r"compile: true needs a compiler, and there is no"),
        (
            NO_HEADERS,
            "mine",
            r"mine finds no Python\.h, the headers of Python 3\.\d+: install them .*python3-dev\)",
        ),
        (NO_LIBRARY, "mine", r"mine does not compile \(ld: error: cannot find -lstdc\+\+\): install another"),
        ("exit 1", "mine", r"mine does not compile \(no error message\): install another compiler and name it by CXX"),
        (
            NOTHING,
            "mine -O1",
            r"what mine -O1 compiles cannot be loaded \(.*\): set TORCHINDUCTOR_CACHE_DIR to a folder",
        ),
    ],
)
def test_compilation_asks_for_a_compiler_that_works_before_it_starts(
    compiler: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, script: str, setting: str | None, message: str
) -> None:
    compiler(script)
    if setting is not None:
        monkeypatch.setenv("CXX", setting)
    with pytest.raises(InputError, match=rf"^params\.yaml: .*{message}.*or set compile: false$"):
        hardware.check_compiler()


@pytest.mark.parametrize("setting", ["mine", "mine -O1"])
def test_a_compiler_that_works_passes(
    compiler: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, setting: str, tmp_path: Path
) -> None:
    compiler('PATH=/usr/bin:/bin exec {} "$@"')
    monkeypatch.setenv("CXX", setting)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "not made yet"))
    hardware.check_compiler()


@pytest.mark.usefixtures("compiler", "gpu")
def test_a_gpu_needs_a_compiler_of_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "device", lambda: torch.device("cuda"))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(InputError, match="there is no gcc or clang in PATH"):
        hardware.check_compiler()
    monkeypatch.setenv("CC", "theirs")
    with pytest.raises(InputError, match="there is no theirs in PATH"):
        hardware.check_compiler()


QUOTA = """
import builtins, io, os
exists, opened = os.path.exists, builtins.open
os.path.exists = lambda path: path == "/sys/fs/cgroup/cpu.max" or exists(path)
builtins.open = lambda path, *rest, **more: (
    io.StringIO("{quota} 100000") if path == "/sys/fs/cgroup/cpu.max" else opened(path, *rest, **more)
)
from pipeline.core import processors; print(processors.usable(), processors.workers("auto"))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="containers have quotas on Linux")
@pytest.mark.parametrize(
    ("quota", "environment", "cores"),
    [
        ("100000", {}, "1"),
        ("20000", {}, "1"),  # a fifth of a core
        ("max", {"LOKY_MAX_CPU_COUNT": "1"}, "1"),
    ],
)
def test_cores_that_a_container_does_not_allow_are_not_used(
    quota: str, environment: dict[str, str], cores: str
) -> None:
    command = [sys.executable, "-c", QUOTA.format(quota=quota)]
    found = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [cores, cores]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="there is no affinity on this system")
def test_cores_that_a_scheduler_does_not_allow_are_not_used() -> None:
    script = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    script += "from pipeline.core import processors; print(processors.usable(), processors.workers('auto'))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["1", "1"]
    assert processors.usable() <= (os.cpu_count() or 1)
