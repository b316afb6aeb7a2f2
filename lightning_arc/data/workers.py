"""Processes that end with the process that started them, whatever ends it."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1
"""The option of Linux's ``prctl`` that names the signal a process gets when its parent ends."""

CHECK_SECONDS = 1.0
"""Seconds between two checks of the parent, where the system does not signal its end."""

NICENESS = 10
"""Niceness of data workers, which yields the cores they share to the model."""


def end_with_parent() -> None:
    """Let Linux kill this process when its parent ends; elsewhere this does nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def follow_parent(worker_id: int = 0) -> None:
    """Let a data worker end exactly when its parent does, and run at a lower priority (``worker_init_fn``).

    A terminal and a job scheduler send their signals to the workers too. Workers ignore them: the parent may still need
    batches to end in good order, and it ends its workers itself.

    Args:
        worker_id: number of the worker.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None  # a worker has one
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    end_with_parent()
    if not parent.is_alive():  # it ended before the system was asked
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigtimedwait"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_watch, args=(parent,), name="watch-parent", daemon=True).start()


def _watch(parent: multiprocessing.process.BaseProcess) -> None:
    """End this process at its parent's SIGTERM, or when the parent is gone."""
    while parent.is_alive():
        if not hasattr(signal, "sigtimedwait"):
            time.sleep(CHECK_SECONDS)
        elif (info := signal.sigtimedwait({signal.SIGTERM}, CHECK_SECONDS)) is not None and info.si_pid == parent.pid:
            os._exit(0)
    os._exit(1)
