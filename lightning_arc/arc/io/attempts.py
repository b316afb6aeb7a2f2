"""Attempts as JSON holds them: grids, or objects with a grid as their ``answer`` (arc-agi-benchmarking)."""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from lightning_arc.arc.grid import Grid, as_grid, named_grid
from lightning_arc.errors import DataError, shortened


class Attempts:
    """Reads the attempts at test inputs.

    An attempt is a grid, or an object whose ``answer`` is one; ``null`` and empty grids are skipped. An invalid grid is
    an error. An ``answer`` is a model's raw output, so a malformed one is only counted and skipped.

    Attributes:
        n_malformed: answers that were no grid.
        first: what is wrong with the first malformed answer.
    """

    def __init__(self) -> None:
        self.n_malformed = 0
        self.first = ""

    def grids(self, value: Any, where: str) -> Iterator[Grid]:
        """Iterate over the grids of a test input.

        Args:
            value: an object of attempts by name, or a list of them.
            where: its name in messages.

        Raises:
            DataError: names the invalid attempt.
        """
        named: Iterable[tuple[Any, Any]]
        if isinstance(value, dict):
            for name in value:
                if not name.startswith("attempt_"):
                    raise DataError(f"{where}: {shortened(repr(name))}: expected names such as attempt_1")
            named = value.items()
        elif isinstance(value, list):
            named = enumerate(value)
        else:
            raise DataError(f"{where}: expected an object of attempts or a list of grids")
        for name, attempt in named:
            at = f"{where}.{shortened(str(name))}"
            if isinstance(attempt, dict):
                grid = self._answer(attempt, at)
            else:
                grid = None if _is_empty(attempt) else named_grid(attempt, at)
            if grid is not None:
                yield grid

    def _answer(self, attempt: dict[str, Any], where: str) -> Grid | None:
        if "answer" not in attempt:
            raise DataError(f"{where}: answer is missing, expected a grid or null")
        answer = attempt["answer"]
        if isinstance(answer, str):
            with suppress(ValueError, RecursionError):
                answer = json.loads(answer)
        if _is_empty(answer) or answer == "":
            return None
        try:
            return as_grid(answer)
        except DataError as error:
            self.n_malformed += 1
            self.first = self.first or f"{where}.answer {error}"
            return None


def is_benchmark(value: Any) -> bool:
    """Whether a value is a task in arc-agi-benchmarking's format: a list with one object of attempts per test input."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(one, dict) and any(name.startswith("attempt_") for name in one) for one in value)


def _is_empty(grid: Any) -> bool:
    return grid is None or (isinstance(grid, list) and all(row == [] for row in grid))
