"""Grids: what a valid one is, and how two are compared."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lightning_arc.errors import DataError, OversizedError

Grid: TypeAlias = NDArray[np.int8]
"""A grid of colours: ``(height, width)`` ``int8``, values 0 to 9, sides 1 to 30."""

MAX_SIDE = 30
N_COLOURS = 10
_COLOURS = bytes(range(N_COLOURS))


def as_grid(value: Sequence[Sequence[int]] | np.ndarray) -> Grid:
    """Check a nested list (or array) and return it as a grid.

    Args:
        value: rows of integers, as they come from JSON.

    Returns:
        A read-only ``(height, width)`` ``int8`` array.

    Raises:
        DataError: if it is not rectangular, a side is not 1 to 30, or a cell is not an integer from 0 to 9.
        OversizedError: if nothing is wrong with it but that a side is more than 30.
    """
    if isinstance(value, np.ndarray):
        fault = _array_fault(value)
        grid = None if fault else value.astype(np.int8)
    else:
        grid = _packed(value)
        fault = _rows_fault(value) if grid is None else None
    if grid is None:
        raise DataError(fault)
    if side_fault := _side_fault(*grid.shape):
        raise (OversizedError if min(grid.shape) > 0 else DataError)(side_fault)
    grid.setflags(write=False)
    return grid


def named_grid(value: Any, name: str) -> Grid:
    """Check a grid that has a name, such as ``tasks.json: task a: test[0].input``.

    Raises:
        DataError: like `as_grid`, with the name before it.
    """
    try:
        return as_grid(value)
    except DataError as error:
        raise type(error)(f"{name} {error}") from None


def _packed(value: Sequence[Sequence[int]]) -> Grid | None:
    """Return rows as an array, or ``None`` if something is wrong with them; files hold hundreds of thousands."""
    if not isinstance(value, list | tuple) or not set(map(type, value)) <= {list, tuple}:
        return None
    if len(set(map(len, value))) != 1 or set(map(type, chain.from_iterable(value))) != {int}:
        return None
    try:
        cells = b"".join(map(bytes, value))
    except ValueError:  # not 0 to 255
        return None
    if cells.translate(None, _COLOURS):
        return None
    return np.frombuffer(cells, np.int8).reshape(len(value), len(value[0]))


def _rows_fault(value: Any) -> str:
    """Say what is wrong with rows that do not form a grid."""
    if not isinstance(value, list | tuple) or not value or not all(isinstance(row, list | tuple) for row in value):
        return "expected a list of rows, each a list of integers"
    width = len(value[0])
    if width == 0:
        return "has rows without cells"
    for i, row in enumerate(value):
        if len(row) != width:
            return f"row {i} has {len(row)} cells, row 0 has {width}"
        for j, cell in enumerate(row):
            if type(cell) is not int:
                return f"row {i} column {j} is {cell!r:.40}, expected an integer"
            if not 0 <= cell < N_COLOURS:
                return f"row {i} column {j} is {cell!r:.40}, colours are 0 to {N_COLOURS - 1}"
    return "expected a list of rows, each a list of integers"


def _array_fault(value: np.ndarray) -> str | None:
    if value.dtype.kind not in "iu" or value.ndim != 2:
        return f"expected a 2-dimensional array of integers, found {value.ndim} dimensions of {value.dtype}"
    wrong = np.argwhere((value < 0) | (value >= N_COLOURS))
    if len(wrong):
        row, column = wrong[0]
        return f"row {row} column {column} is {value[row, column]}, colours are 0 to {N_COLOURS - 1}"
    return None


def _side_fault(height: int, width: int) -> str | None:
    if 1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE:
        return None
    return f"is {height} x {width}, sides must be 1 to {MAX_SIDE}"


def grid_key(grid: Grid) -> bytes:
    """Return bytes that are equal for two grids exactly when the grids are equal; usable as a dictionary key."""
    return bytes(grid.shape) + np.ascontiguousarray(grid, dtype=np.int8).tobytes()


def same_grid(one: Grid, other: Grid) -> bool:
    """Whether two grids have the same shape and the same cells."""
    return one.shape == other.shape and bool((one == other).all())
