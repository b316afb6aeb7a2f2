"""Reading JSON with errors that name the place, and writing files whole or not at all."""

import gc
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_arc.errors import DataError, shortened

_PLAIN_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,99}")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})")


def expand(path: str | Path) -> Path:
    """Expand ``~``, ``$NAME`` and ``${NAME}`` in a path.

    Raises:
        DataError: names a variable that is not set.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise DataError(f"{path}: the environment variable {name} is not set")
        return os.environ[name]

    return Path(os.path.expanduser(_VARIABLE.sub(value, str(path))))


def parse_json(data: bytes, name: str) -> Any:
    """Parse JSON; a duplicate key in an object is an error.

    Args:
        data: UTF-8 text, with or without a byte order mark.
        name: its name in messages.

    Raises:
        DataError: names the line and column of the first syntax error.
    """
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=lambda pairs: _unique(pairs, name))
    except DataError:
        raise
    except json.JSONDecodeError as error:
        raise DataError(f"{name}: not JSON: line {error.lineno} column {error.colno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not JSON: byte {error.start} is not UTF-8 text") from error
    except ValueError as error:  # Python limits the digits of an integer
        raise DataError(f"{name}: not JSON of this kind: it holds an integer of thousands of digits") from error
    except RecursionError as error:
        raise DataError(f"{name}: not JSON of this kind: nested too deeply") from error


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: if it cannot be read or is not JSON.
    """
    try:
        check_regular(path)
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_json(data, str(path))


def check_regular(path: Path) -> None:
    """Refuse pipes and devices, which can keep a reader waiting for ever.

    Raises:
        DataError: if it is one.
        OSError: if it does not exist.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DataError(f"{path}: is a pipe or a device, expected a file")


def json_files(folder: Path) -> list[Path]:
    """Return a folder's files that end in ``.json``, in the order of their names, without hidden ones.

    Raises:
        DataError: if the folder cannot be read.
    """
    return sorted(path for path in entries(folder) if path.name.endswith(".json"))


def sub_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, in the order of their names, without hidden ones.

    Raises:
        DataError: if the folder cannot be read.
    """
    return sorted(path for path in entries(folder) if path.is_dir())


def entries(folder: Path) -> list[Path]:
    """Return a folder's entries in any order, without hidden ones.

    Raises:
        DataError: if the folder cannot be read.
    """
    try:
        return [folder / name for name in os.listdir(folder) if not name.startswith((".", "__MACOSX"))]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error


def file_name(text: str) -> str:
    """Return a file name that is unique to a text such as a task's id.

    A short text in lower case is its own file name. In others, everything that a file system may refuse, cut off or
    confuse (separators, upper case, more than 100 characters) is replaced, and ``~`` and a digest of the text appended.
    """
    if _PLAIN_NAME.fullmatch(text):
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', text[:60])}~{digest[:16]}"


@contextmanager
def no_cycle_search() -> Iterator[None]:
    """Pause Python's search for reference cycles, which takes a third of the time of parsing a million small lists."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write to, which replaces ``path`` only if nothing failed.

    Missing folders are created.

    Raises:
        DataError: if the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        # Without the folder there is no temporary file to remove.
        if path.parent.is_dir():
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` to write to, which replaces ``path`` only if nothing failed.

    If ``path`` exists, its other files stay.

    Raises:
        DataError: if the folder cannot be written.
    """
    path = Path(os.path.abspath(path))
    if path.exists() and not path.is_dir():
        raise DataError(f"{path}: is a file, expected a folder to write to")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        files = [file for file in sorted(temporary.rglob("*")) if file.is_file()]
        for file in files:
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        if not path.is_dir():
            os.replace(temporary, path)
            return
        for file in files:
            target = path / file.relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n")


def dump_line(value: Any) -> str:
    """Return a value as one line of a JSON Lines file."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n"


def _unique(pairs: list[tuple[str, Any]], name: str) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DataError(f"{name}: {shortened(repr(key))} stands twice in one object")
            seen.add(key)
    return value
