"""How a process uses processor threads and memory, set before torch is loaded."""

import ctypes
import math
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's settings (``malloc.h``)."""

LARGEST = 2**30
"""Size of the largest tensors, in bytes, that reuse freed memory instead of new memory from the system."""

SPINS = 2000
"""How often a waiting thread of GNU's OpenMP looks for work before it sleeps; ``make bench`` compares some numbers."""

SET_BY_USERS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def available_cpus(cgroup: Path = CGROUP) -> int:
    """Return how many CPUs this process may use: its affinity, bounded by the CPU quota of its container.

    Args:
        cgroup: where Linux shows the control group of this process.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cpus, _quota(cgroup))))


def _quota(cgroup: Path) -> float:
    """Return the CPU quota in CPUs, infinity where there is none."""
    try:
        if (limits := cgroup / "cpu.max").is_file():  # version 2
            quota, period = limits.read_text().split()
        else:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):
        return math.inf


def configure_threads(environment: MutableMapping[str, str], cgroup: Path = CGROUP) -> None:
    """Set how OpenMP's threads behave in this process and its children. Variables that are already set stay.

    Threads that wait spin for a moment and then sleep. Longer spinning makes two runs that share cores three
    to five times as slow as one; sleeping at once makes one run a quarter slower.
    OpenMP counts the CPUs of the affinity by itself, but not a container's quota.

    Args:
        environment: the environment variables, read when torch is loaded.
        cgroup: where Linux shows the control group of this process.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        environment.setdefault("GOMP_SPINCOUNT", str(SPINS))
    if _quota(cgroup) < math.inf:
        environment.setdefault("OMP_NUM_THREADS", str(available_cpus(cgroup)))


def keep_freed_memory(environment: Mapping[str, str]) -> None:
    """Let glibc keep freed memory for the next tensors, unless a person has set this; other C libraries do not change.

    By default glibc hands tensors of more than 32 MB back to the system when they are freed. The next step has their
    memory zeroed again, a page of 4 KB at a time, which takes up to a quarter of a step's time. The peak of memory
    stays the same.

    Args:
        environment: the environment variables.
    """
    if any(name in environment for name in SET_BY_USERS):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library
        return
    mallopt(TRIM_THRESHOLD, -1)
    mallopt(MMAP_THRESHOLD, LARGEST)
