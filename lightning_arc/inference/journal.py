"""Journals: records on disk as they are made, so that interrupted work can continue.

The first line holds a signature of the work and its inputs; each further line is a record as JSON. A file with another
signature is begun anew, or removed if there are fewer processes now. A last line that an interruption left half-written
is cut off.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from lightning_arc.errors import DataError

Record = TypeVar("Record")


class Journal(Generic[Record]):
    """A journal that is added to. Several processes have a file each; one that cannot be written is a `DataError`.

    Args:
        path: the file; its folder is made.
        signature: names the model, data and settings that the records are about.
        encode: makes a JSON object from a record.
        decode: makes a record from a JSON value, ``None`` if it holds none.
    """

    def __init__(
        self,
        path: Path,
        signature: str,
        encode: Callable[[Record], dict[str, Any]],
        decode: Callable[[Any], Record | None],
    ) -> None:
        self._encode, self._path = encode, path
        with _written(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            kept, self.records = read_journal(path, signature, decode)
            if not kept:
                path.write_bytes(json.dumps({"signature": signature}).encode() + b"\n")
            elif kept != path.stat().st_size:
                os.truncate(path, kept)
            self._file = path.open("ab")

    def append(self, record: Record) -> None:
        """Add a record; it is on disk when this returns."""
        self.records.append(record)
        with _written(self._path):
            self._file.write(json.dumps(self._encode(record), allow_nan=False).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        with _written(self._path):
            self._file.close()


def remove_other_work(journals: Iterable[Path], signature: str) -> None:
    """Remove the journals that have another signature."""
    for path in journals:
        with _written(path), path.open("rb") as file:
            if _parsed(file.readline()) != {"signature": signature}:
                path.unlink()


def read_journal(path: Path, signature: str, decode: Callable[[Any], Record | None]) -> tuple[int, list[Record]]:
    """Read a journal; complete lines without a record are skipped.

    Returns:
        The length in bytes of its whole lines and their records; ``(0, [])`` if it is missing or has another signature.
    """
    if not path.is_file():
        return 0, []
    data = path.read_bytes()
    first, *others = data[: data.rfind(b"\n") + 1].split(b"\n")
    if _parsed(first) != {"signature": signature}:
        return 0, []
    records = [record for line in others if (record := decode(_parsed(line))) is not None]
    return data.rfind(b"\n") + 1, records


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Turn an error in writing into one that names the file."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
