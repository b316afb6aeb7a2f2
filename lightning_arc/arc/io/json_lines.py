"""Tasks in JSON lines: files that may be larger than memory, whose lines are read one by one on access."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lightning_arc.arc.io.files import no_cycle_search, parse_json
from lightning_arc.arc.io.task_sources import is_named, name_of
from lightning_arc.arc.task import Task
from lightning_arc.errors import DataError, LineError, OversizedError, OversizedLineError, shortened

CHUNK = 64 * 2**20
"""Bytes that are searched for line breaks at once."""

MakeTask = Callable[[str, Any, str], Task]


class JsonLinesTasks(Mapping[str, Task]):
    """Tasks of a file with one task per line; lines are counted from 1, blank ones are skipped.

    A task's id is the ``id`` or ``task_id`` of its line, if the first line has one, else ``STEM:LINE``. Opening makes
    an index of 20 bytes per line; where lines have ids, it also reads every line and keeps its id. On each access a
    line is read, checked and made into a task.

    Args:
        path: the file.
        make: makes a task from its id, the value of its line, and the line's name in messages.
        refuses_oversized: whether a grid of more than 30 rows or columns raises an `OversizedError`, which ends a run,
            instead of an `OversizedLineError`, which a long run skips.

    Raises:
        DataError: if the file cannot be read, has no task in its first line, or an id stands twice.
        LineError: on access, if a line has no valid task.
    """

    def __init__(self, path: Path, make: MakeTask, refuses_oversized: bool = False) -> None:
        self.path, self._make, self._refuses_oversized = path, make, refuses_oversized
        self._open()
        self._starts, self._stops, self._numbers = self._find_lines()
        if not len(self._numbers):
            raise DataError(f"{path}: holds no tasks, expected one in each line")
        self._places = self._read_ids() if _own_id(self._value(0)) is not None else None
        with suppress(OversizedLineError):
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
        if self._places is not None:
            return iter(self._places)
        return map(self._numbered, range(len(self)))

    def __getitem__(self, task_id: str) -> Task:
        """Read a task."""
        place = self._place(task_id) if self._places is None else self._places.get(task_id)
        if place is None:
            raise KeyError(task_id)
        try:
            task = self._make(task_id, self._value(place), self._where(place))
        except OversizedError as error:
            raise (OversizedError if self._refuses_oversized else OversizedLineError)(
                str(error), error.n_tests
            ) from error
        except DataError as error:
            raise LineError(str(error)) from error
        return replace(task, is_named=task_id != self._numbered(place))

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
        # A task's line is longer than this; a shorter line is read to see whether it is blank.
        written = stops - starts > 2
        for place in np.flatnonzero(~written & (stops > starts)).tolist():
            length = int(stops[place] - starts[place])
            written[place] = bool(os.pread(self._descriptor, length, int(starts[place])).strip())
        numbers = np.flatnonzero(written)
        return starts[numbers], stops[numbers], numbers.astype(np.int32) + 1

    def _read_ids(self) -> dict[str, int]:
        """Return the place of every line by its own id, or by its number where it has none or is not JSON."""
        places: dict[str, int] = {}
        with no_cycle_search():
            for place in range(len(self)):
                own = None
                with suppress(DataError):
                    own = _own_id(self._value(place))
                first = places.setdefault(self._numbered(place) if own is None else own, place)
                if first != place:
                    raise DataError(
                        f"{self._where(place)}: id {shortened(repr(own))} stands in line {self._numbers[first]} too"
                    )
        return places

    def _numbered(self, place: int) -> str:
        return f"{self.path.stem}:{self._numbers[place]}"

    def _where(self, place: int) -> str:
        return f"{self.path}:{self._numbers[place]}"

    def _place(self, task_id: str) -> int | None:
        """Return the place of a line by its number, ``None`` if there is none."""
        stem, _, text = task_id.rpartition(":")
        number = int(text) if stem == self.path.stem and text.isdecimal() else 0
        place = int(np.searchsorted(self._numbers, number))
        return None if place == len(self) or self._numbers[place] != number else place

    def _value(self, place: int) -> Any:
        start, stop = int(self._starts[place]), int(self._stops[place])
        return parse_json(os.pread(self._descriptor, stop - start, start), self._where(place))


def _own_id(value: Any) -> str | None:
    """Return the name that a line gives its task, ``None`` if it gives none."""
    for field in ("id", "task_id"):
        own = value.get(field) if isinstance(value, dict) else None
        if isinstance(own, str | int):
            return str(own)
    return name_of(value) if is_named(value) else None
