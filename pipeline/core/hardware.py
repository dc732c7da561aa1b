"""Settings that depend on the hardware: compute device, memory allocation."""

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import torch

from pipeline.core.errors import InputError

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # from malloc.h


def device() -> torch.device:
    """The GPU if there is one (``cuda`` also for AMD's, ``mps`` for Apple's), otherwise the CPU.

    Raises:
        InputError: the installed torch has no kernels for the GPU.
    """
    if torch.cuda.is_available():
        _check_kernels()
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def check_compiler() -> None:
    """Check that what ``torch.compile`` needs works: a compiler of C++ for a CPU, of C for a GPU, and Python's headers.

    A few lines are compiled and loaded, where the compilation will write its files.

    Raises:
        InputError: they cannot be, and the compilation would fail after the data are read.
    """
    on_gpu = device().type == "cuda"
    if on_gpu:
        names = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    else:
        names = [os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")]
    found = [command for name in names if (command := shlex.split(name)) and shutil.which(command[0])]
    if not found:
        raise InputError(
            f"params.yaml: compile: true needs a compiler, and there is no {' or '.join(names)} in PATH: install it "
            "(Debian, Ubuntu: apt install g++; macOS: xcode-select --install), or set compile: false"
        )
    folder = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR", ""))
    with tempfile.TemporaryDirectory(dir=folder if folder.is_dir() else None) as temporary:
        library = Path(temporary, "trial.so")
        if problem := _problem_of_compiling(found[0], "c" if on_gpu else "c++", library):
            raise InputError(f"params.yaml: compile: true: {problem}, or set compile: false")


def _problem_of_compiling(compiler: list[str], language: str, library: Path) -> str:
    """What is wrong and what to do, as part of a message; empty if a library of a few lines is made and loads."""
    headers = {sysconfig.get_path("include"), sysconfig.get_path("include", "posix_prefix")}
    includes = [f"-I{folder}" for folder in sorted(headers)]
    done = subprocess.run(
        [*compiler, "-x", language, "-", *includes, "-shared", "-fPIC", "-o", str(library)],
        input="#include <Python.h>\n#include <math.h>\n",
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    name = " ".join(compiler)
    if "Python.h" in done.stderr:
        return (
            f"{name} finds no Python.h, the headers of Python {sysconfig.get_python_version()}: install them (Debian, "
            "Ubuntu: apt install python3-dev)"
        )
    if done.returncode:
        said = next((line.strip() for line in done.stderr.splitlines() if "error" in line), "no error message")
        return f"{name} does not compile ({said}): install another compiler and name it by CXX (on a GPU, CC)"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return (
            f"what {name} compiles cannot be loaded ({error}): set TORCHINDUCTOR_CACHE_DIR to a folder on a disk that "
            "allows programs"
        )
    return ""


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next training step; without effect under other C libraries.

    By default, glibc returns freed memory to the system and requests it again page by page, which takes a few per cent
    of a training step on a CPU. Both limits have to be set: setting the first alone stops glibc from raising the
    second, and the system would allocate every large array.
    """
    try:
        set_limit = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for limit in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
        set_limit(limit, 2**30)


def prepare() -> None:
    """Settings of this process for long computations: cuDNN measures which of its kernels are fastest, glibc as above.

    TF32 keeps torch's defaults: convolutions use it where they are in float32, and matrix products do not, so that the
    heads, which compute in float32 for the sake of their precision, have it.
    """
    torch.backends.cudnn.benchmark = True
    keep_freed_memory()


@functools.cache
def _check_kernels() -> None:
    capability = torch.cuda.get_device_capability()
    built = torch.cuda.get_arch_list()
    if built and not any(_runs_on(architecture, capability) for architecture in built):
        major, minor = capability
        raise InputError(
            f"the installed torch has no kernels for this GPU (compute capability {major}.{minor}; it has "
            f"{', '.join(built)}): install a build of torch for it, or set CUDA_VISIBLE_DEVICES= to use the CPU"
        )


def _runs_on(architecture: str, capability: tuple[int, int]) -> bool:
    """Whether code for ``architecture``, such as sm_86 (binary) or compute_90 (compiled when loaded), runs on a GPU.

    Binaries run on the same major version from their minor version on; letters mark features of single GPUs. Names of
    AMD's architectures, such as gfx90a, do not follow from a capability, and count as running.
    """
    kind, _, digits = architecture.partition("_")
    if kind not in ("sm", "compute"):
        return True
    digits = digits.rstrip("abcdefghijklmnopqrstuvwxyz")
    built = int(digits[:-1]), int(digits[-1])
    return built <= capability and (kind == "compute" or built[0] == capability[0])
