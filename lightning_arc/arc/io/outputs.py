"""Checks that results can be written, made before the work whose results they are."""

import os
import tempfile
from pathlib import Path

from lightning_arc.errors import DataError

LONGEST_NAME = 255
"""Most bytes of a file or folder name that file systems accept."""


def check_folder(path: str | Path, option: str) -> None:
    """Refuse a folder that cannot be made or written to. The check leaves nothing behind.

    Args:
        path: the folder; it and those above it may be missing.
        option: the setting that names it.

    Raises:
        DataError: says why.
    """
    path = Path(path)
    there = path.absolute()
    try:
        while not os.path.lexists(there):
            there = there.parent
        if not there.is_dir():
            name = "" if there == path.absolute() else f"{there} "
            kind = "a link to nothing" if there.is_symlink() and not there.exists() else "a file"
            raise DataError(f"{path}: {name}is {kind}, expected a folder ({option})")
        if any("\0" in part or len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
            raise DataError(f"{path}: cannot be written to: File name too long, or not valid ({option})")
        # Permissions are not enough: the file system may be read-only or full.
        with tempfile.TemporaryDirectory(prefix=".lightning-arc-", dir=there):
            pass
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be written to: {reason} ({option})") from error


def check_file(path: str | Path, option: str) -> None:
    """Refuse a file that could not be written. The check leaves nothing behind.

    Raises:
        DataError: says why.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path}: is a folder, expected the name of a file ({option})")
    check_folder(path.parent, option)
