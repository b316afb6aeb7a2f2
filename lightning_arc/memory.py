"""How a process keeps the memory that it frees, set before torch is loaded."""

import ctypes
from collections.abc import Mapping

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""What glibc calls its settings (``malloc.h``)."""

LARGEST = 2**30
"""Bytes of the largest tensors that come from memory that was freed, and not from the system."""

SET_BY_USERS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory(environment: Mapping[str, str]) -> None:
    """Let glibc keep freed memory for the next tensors; what a person has set for it stays, other libraries too.

    Left alone it hands tensors of more than 32 MB back to the system when they are freed. The next step has them zeroed
    again, a page of 4 KB at a time, which takes up to a quarter of a step's time. The peak of memory stays the same.

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
