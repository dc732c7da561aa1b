"""What a step frees stays with the process for the next one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

STEPS = """
import resource, sys, torch
from pipeline.training.runtime import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def step():
    return sum(float(part.sum()) for part in [torch.ones(2**20) for _ in range(16)])  # 64 MB
step(), step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_asked_for(how: str) -> int:
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-c", STEPS, how]
    return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="this is about glibc")
def test_freed_memory_is_used_again() -> None:
    assert pages_asked_for("keep") < pages_asked_for("leave") / 10
