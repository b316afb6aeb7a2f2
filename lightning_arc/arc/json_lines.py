"""Tasks in JSON lines: files larger than memory, of which single lines are read when they are asked for.

Knows bytes, lines and JSON. Knows nothing of what makes a task valid; it is told how to make one of a line's value.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lightning_arc.arc.files import parse_json
from lightning_arc.arc.grid import DataError
from lightning_arc.arc.task import Task

CHUNK = 64 * 2**20
"""Bytes that are searched for line breaks at once."""

MakeTask = Callable[[str, Any, str], Task]


class JsonLinesTasks(Mapping[str, Task]):
    """Tasks of a file with a line for each, by the id ``STEM:LINE``, lines counted from 1 and blank ones passed over.

    Opening makes an index of 16 bytes a line. A line is read, checked and made a task each time it is asked for.

    Args:
        path: the file.
        make: makes a task of its id, the value of its line, and what messages call it.

    Raises:
        DataError: if the file cannot be read or has no task in its first line; later, if a line that is read has none.
    """

    def __init__(self, path: Path, make: MakeTask) -> None:
        self.path, self._make = path, make
        self._open()
        self._starts, self._stops, self._numbers = self._find_lines()
        if not len(self._numbers):
            raise DataError(f"{path}: holds no tasks, expected one in each line")
        self[next(iter(self))]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_descriptor"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[str]:
        return (f"{self.path.stem}:{number}" for number in self._numbers.tolist())

    def __getitem__(self, task_id: str) -> Task:
        """Read a task."""
        stem, _, text = task_id.rpartition(":")
        number = int(text) if stem == self.path.stem and text.isdecimal() else 0
        place = int(np.searchsorted(self._numbers, number))
        if place == len(self) or self._numbers[place] != number:
            raise KeyError(task_id)
        start, stop = int(self._starts[place]), int(self._stops[place])
        where = f"{self.path}:{number}"
        return self._make(task_id, parse_json(os.pread(self._descriptor, stop - start, start), where), where)

    def _open(self) -> None:
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror}") from error

    def _find_lines(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return first byte, byte behind the last, and number of every line that is not blank."""
        breaks, offset = [], 0
        while chunk := os.pread(self._descriptor, CHUNK, offset):
            breaks.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + offset)
            offset += len(chunk)
        stops = np.concatenate([*breaks, [offset]]).astype(np.int64)
        starts = np.concatenate([[0], stops[:-1] + 1])
        # A line of a task is longer than this; what is shorter is looked at for being blank.
        written = stops - starts > 2
        for place in np.flatnonzero(~written & (stops > starts)).tolist():
            length = int(stops[place] - starts[place])
            written[place] = bool(os.pread(self._descriptor, length, int(starts[place])).strip())
        numbers = np.flatnonzero(written)
        return starts[numbers], stops[numbers], numbers.astype(np.int32) + 1
