"""What a step frees stays with the process for the next one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
