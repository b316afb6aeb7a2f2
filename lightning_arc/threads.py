"""How many processor threads a process computes with, set before torch is loaded."""

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available_cpus(cgroup: Path = CGROUP) -> int:
    """Return how many CPUs this process may use: its affinity, bounded by the CPU quota of its container.

    Args:
        cgroup: where Linux shows the control group of this process.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cpus, math.ceil(_quota(cgroup))))


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
    """Set how OpenMP's threads behave in this process and its children. What is set already stays.

    Threads that wait sleep at once instead of spinning: two runs that share cores are then no slower than their share.
    OpenMP counts the CPUs of the affinity by itself, but not a container's quota.

    Args:
        environment: the environment variables, read when torch is loaded.
        cgroup: where Linux shows the control group of this process.
    """
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if _quota(cgroup) < math.inf:
        environment.setdefault("OMP_NUM_THREADS", str(available_cpus(cgroup)))
