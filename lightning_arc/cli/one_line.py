"""Errors, signals and warnings of a command, each in one line."""

import logging
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning_arc.errors import DataError, Stopped

NOISE = (
    ".*does not have many workers.*",
    ".*Found .* module.* in eval mode.*",
    ".*gradient_checkpointing.* is deprecated.*",
    ".*isinstance.treespec, LeafSpec.*",
    ".*callbacks used to create the checkpoint need.*",  # ranking with a checkpoint needs no callback of its training
    ".*Checkpoint directory .* exists and is not empty.*",  # true of every continued run
    ".*`IterableDataset` has `__len__` defined.*",  # ours counts only its own share
)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End with one line on standard error at invalid input of a person, or at a signal.

    The status is 2 for an error, 130 for SIGINT (Ctrl-C) and 143 for SIGTERM.
    """
    for noise in NOISE:
        warnings.filterwarnings("ignore", message=noise)
    warnings.showwarning = _one_line_warning
    for package in ("pytorch", "fabric"):
        logger = logging.getLogger(f"lightning.{package}.utilities.rank_zero")
        logger.addFilter(lambda record: "Tip: " not in record.getMessage())
    try:
        yield
    except Stopped as stopped:
        if stopped.message is not None:
            sys.stderr.write(f"{stopped.message}\n")
        raise
    except KeyboardInterrupt:
        sys.stderr.write("stopped by Ctrl-C\n")
        sys.exit(130)
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        sys.stderr.write(f"error: {message}\n")
        sys.exit(2)


def _message(error: BaseException) -> str | None:
    """Return the message for a person's error; ``None`` for an error of this program."""
    cause: BaseException | None = error
    while cause is not None:  # jsonargparse wraps the errors of the classes that it makes
        if isinstance(cause, DataError):
            return _one_line(cause)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    misconfigured = type(error).__name__ == "MisconfigurationException"  # Lightning's, which need not be loaded
    return _one_line(error) if misconfigured or isinstance(error, ArgumentError) else None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _one_line_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    sys.stderr.write(f"warning: {message}\n")
