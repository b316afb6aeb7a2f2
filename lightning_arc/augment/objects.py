"""Objects in grids, and distractors that treat one of them wrongly: moved, recoloured, removed, duplicated.

An object is a set of cells of one colour, other than the background's, that touch each other, corners included.
"""

import numpy as np
from numpy.typing import NDArray

from lightning_arc.arc.grid import N_COLOURS, Grid
from lightning_arc.arc.task import Episode

MAX_MOVE = 3
"""The most rows and columns that an object is moved by."""


def background(grid: Grid) -> int:
    """Return the most frequent colour, the lowest of equally frequent ones."""
    return int(np.bincount(grid.ravel(), minlength=N_COLOURS).argmax())


def object_at(grid: Grid, cell: int) -> NDArray[np.intp]:
    """Return the places, in row order, of all cells of the object that a cell is part of.

    Args:
        grid: ``(height, width)``.
        cell: a place in row order.

    Returns:
        ``(n,)`` places in row order, sorted.
    """
    width, colour = grid.shape[1] + 1, int(grid.flat[cell])
    # A border without a colour, so that no step leaves the grid or wraps around to its other side.
    framed = np.full((grid.shape[0] + 2, width), -1, np.int8)
    framed[1:-1, :-1] = grid
    left = bytearray((framed == colour).tobytes())
    start = (cell // grid.shape[1] + 1) * width + cell % grid.shape[1]
    left[start] = 0
    waiting, found = [start], []
    steps = (-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1)
    while waiting:
        place = waiting.pop()
        found.append(place)
        for step in steps:
            if left[place + step]:
                left[place + step] = 0
                waiting.append(place + step)
    rows, columns = np.divmod(np.sort(np.array(found)), width)
    return (rows - 1) * grid.shape[1] + columns


def object_moved(rng: np.random.Generator, episode: Episode) -> Grid | None:
    """The right output with one object up to three rows and columns away, background where it was."""
    return _moved(rng, episode.known_output, keep=False)


def object_duplicated(rng: np.random.Generator, episode: Episode) -> Grid | None:
    """The right output with one object a second time, anywhere."""
    return _moved(rng, episode.known_output, keep=True)


def object_removed(rng: np.random.Generator, episode: Episode) -> Grid | None:
    """The right output without one object."""
    grid = episode.known_output
    cells = _draw_object(rng, grid)
    return None if cells is None else _painted(grid, cells, background(grid))


def object_recoloured(rng: np.random.Generator, episode: Episode) -> Grid | None:
    """The right output with one object in another colour."""
    grid = episode.known_output
    cells = _draw_object(rng, grid)
    if cells is None:
        return None
    colour = (int(grid.flat[cells[0]]) + int(rng.integers(1, N_COLOURS))) % N_COLOURS
    return _painted(grid, cells, colour)


def _draw_object(rng: np.random.Generator, grid: Grid) -> NDArray[np.intp] | None:
    """Draw an object with a probability in proportion to its number of cells."""
    cells = np.flatnonzero(grid != background(grid))
    return object_at(grid, int(cells[rng.integers(len(cells))])) if len(cells) else None


def _moved(rng: np.random.Generator, grid: Grid, keep: bool) -> Grid | None:
    cells = _draw_object(rng, grid)
    if cells is None:
        return None
    rows, columns = np.divmod(cells, grid.shape[1])
    reach = max(grid.shape) if keep else MAX_MOVE
    down = _draw_step(rng, int(rows.min()), grid.shape[0] - 1 - int(rows.max()), reach)
    right = _draw_step(rng, int(columns.min()), grid.shape[1] - 1 - int(columns.max()), reach)
    if down == right == 0:
        return None
    moved = grid.copy() if keep else _painted(grid, cells, background(grid))
    moved.flat[cells + down * grid.shape[1] + right] = grid.flat[cells[0]]
    return moved


def _draw_step(rng: np.random.Generator, before: int, behind: int, reach: int) -> int:
    return int(rng.integers(-min(before, reach), min(behind, reach) + 1))


def _painted(grid: Grid, cells: NDArray[np.intp], colour: int) -> Grid:
    painted = grid.copy()
    painted.flat[cells] = colour
    return painted
