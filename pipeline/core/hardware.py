"""Settings that depend on the hardware: compute device, memory allocation."""

import ctypes
import functools
import os
import shutil
import sys

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
    """Check that ``torch.compile`` finds a compiler: of C++ for a CPU, of C for a GPU.

    Raises:
        InputError: there is none, and the compilation would fail after the data are read.
    """
    if device().type == "cuda":
        names = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    else:
        names = [os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")]
    if not any(map(shutil.which, names)):
        raise InputError(
            f"params.yaml: compile: true needs a compiler, and there is no {' or '.join(names)} in PATH: install it "
            "(Debian, Ubuntu: apt install g++; macOS: xcode-select --install), or set compile: false"
        )


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
    if not any(_runs_on(architecture, capability) for architecture in built):
        major, minor = capability
        raise InputError(
            f"the installed torch has no kernels for this GPU (compute capability {major}.{minor}; it has "
            f"{', '.join(built)}): install a build of torch for it, or set CUDA_VISIBLE_DEVICES= to use the CPU"
        )


def _runs_on(architecture: str, capability: tuple[int, int]) -> bool:
    """Whether code for ``architecture``, such as sm_86 (binary) or compute_90 (compiled when loaded), runs on a GPU.

    Binaries run on the same major version from their minor version on; letters mark features of single GPUs.
    """
    kind, _, digits = architecture.partition("_")
    digits = digits.rstrip("abcdefghijklmnopqrstuvwxyz")
    built = int(digits[:-1]), int(digits[-1])
    return built <= capability and (kind == "compute" or built[0] == capability[0])
