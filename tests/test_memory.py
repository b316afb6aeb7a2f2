"""Freed memory is used again by the next tensors, unless the environment sets otherwise."""

import os
import platform
import subprocess
import sys

import pytest

from lightning_arc.environment import SET_BY_USERS

FAULTS = """
import resource
import lightning_arc, torch
def step():
    tensors = [torch.ones(15_000_000) for _ in range(4)]
for _ in range(6):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 3 * 4 * 15_000_000 * 4 // 4096


def faults(**environment: str) -> int:
    kept = {name: value for name, value in os.environ.items() if name not in SET_BY_USERS}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env=kept | environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_tensors_of_a_step_lie_where_those_of_the_last_one_lay():
    assert faults() < 0.1 * PAGES
    assert faults(MALLOC_TRIM_THRESHOLD_="131072") > 0.5 * PAGES
