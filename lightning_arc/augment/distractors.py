"""Distractors: hard wrong predictions made from a task alone.

Each maker is a small pure function of a source of randomness and an episode whose right output is known; it returns
``None`` where it does not apply, and may return the right output, which `draw_distractors` discards.
"""

from bisect import bisect
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from lightning_arc.arc.grid import MAX_SIDE, N_COLOURS, Grid, grid_key
from lightning_arc.arc.task import Episode
from lightning_arc.augment.objects import (
    background,
    object_duplicated,
    object_moved,
    object_recoloured,
    object_removed,
)
from lightning_arc.augment.views import N_SYMMETRIES, dihedral
from lightning_arc.augment.weights import shares

Maker = Callable[[np.random.Generator, Episode], Grid | None]

MAX_CHANGED_CELLS = 4
"""The most cells that `few_cells_changed` recolours."""

MISSES = 12
"""Consecutive failures (not applicable, or a duplicate) after which a maker is dropped."""


def few_cells_changed(rng: np.random.Generator, episode: Episode) -> Grid:
    """The right output with one to four cells recoloured, in the output's colours if it has several."""
    grid = episode.known_output.copy()
    colours = _colours(grid)
    if len(colours) == 1:
        colours = _task_colours(episode)
    n_cells = int(rng.integers(1, 1 + min(MAX_CHANGED_CELLS, grid.size)))
    cells = rng.choice(grid.size, n_cells, replace=False)
    grid.flat[cells] = _other_colours(rng, grid.flat[cells], colours)
    return grid


def the_query(rng: np.random.Generator, episode: Episode) -> Grid:
    """The input itself."""
    return episode.query


def another_output(rng: np.random.Generator, episode: Episode) -> Grid | None:
    """A demonstration's output."""
    n = len(episode.demonstrations)
    return episode.demonstrations[rng.integers(n)].output if n else None


def symmetry(rng: np.random.Generator, episode: Episode) -> Grid:
    """A reflection or rotation of the right output."""
    return dihedral(episode.known_output, int(rng.integers(1, N_SYMMETRIES)))


def colours_swapped(rng: np.random.Generator, episode: Episode) -> Grid:
    """The right output with one of its colours and another colour of the task exchanged."""
    grid = episode.known_output
    own = _colours(grid)
    one = own[rng.integers(len(own))]
    other = _other_colours(rng, one, _task_colours(episode))
    mapping = np.arange(N_COLOURS, dtype=np.int8)
    mapping[[one, other]] = other, one
    return mapping[grid]


def colours_permuted(rng: np.random.Generator, episode: Episode) -> Grid | None:
    """The right output with its colours permuted, as by a wrong colour mapping."""
    grid = episode.known_output
    own = _colours(grid)
    if len(own) < 3:
        return None
    mapping = np.arange(N_COLOURS, dtype=np.int8)
    mapping[own] = rng.permutation(own)
    return mapping[grid]


def cropped(rng: np.random.Generator, episode: Episode) -> Grid | None:
    """The right output without the rows and columns of background around its content."""
    grid = episode.known_output
    rows, columns = np.nonzero(grid != background(grid))
    if not len(rows):
        return None
    return grid[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def repeated(rng: np.random.Generator, episode: Episode) -> Grid | None:
    """The right output twice or three times as high or wide: whole copies, or every row or column repeated."""
    axis, times = int(rng.integers(2)), int(rng.integers(2, 4))
    grid = episode.known_output
    if grid.shape[axis] * times > MAX_SIDE:
        return None
    return grid.repeat(times, axis) if rng.random() < 0.5 else np.concatenate([grid] * times, axis)


def wrong_shape(rng: np.random.Generator, episode: Episode) -> Grid | None:
    """The right output without its first or last row or column, or with that one doubled."""
    grid, axis = episode.known_output, int(rng.integers(2))
    last = grid.shape[axis] - 1
    at = 0 if rng.random() < 0.5 else last
    if rng.random() < 0.5:
        return np.delete(grid, at, axis) if last else None
    return np.insert(grid, at, grid.take(at, axis), axis) if last + 1 < MAX_SIDE else None


def partly_input(rng: np.random.Generator, episode: Episode) -> Grid | None:
    """The right output with some of the cells that the rule changes still as in the input.

    These cells are random, or lie at one end of the grid's rows or columns, as if the rule had been applied halfway.
    """
    right = episode.known_output
    if episode.query.shape != right.shape:
        return None
    changed = np.flatnonzero(episode.query != right)
    if len(changed) < 2:
        return None
    manner = rng.integers(3)
    if manner == 0:
        changed = rng.permutation(changed)
    elif manner == 1:
        changed = changed[np.argsort(changed % right.shape[1], kind="stable")]
    left = int(rng.integers(1, len(changed)))
    cells = changed[:left] if rng.random() < 0.5 else changed[-left:]
    grid = right.copy()
    grid.flat[cells] = episode.query.flat[cells]
    return grid


MAKERS: dict[str, Maker] = {
    maker.__name__: maker
    for maker in (
        few_cells_changed,
        object_moved,
        object_recoloured,
        object_removed,
        object_duplicated,
        the_query,
        another_output,
        symmetry,
        colours_swapped,
        colours_permuted,
        cropped,
        repeated,
        wrong_shape,
        partly_input,
    )
}

DEFAULT_WEIGHTS: dict[str, float] = {
    "few_cells_changed": 3.0,
    "object_moved": 1.5,
    "object_recoloured": 1.0,
    "object_removed": 1.0,
    "object_duplicated": 1.0,
    "the_query": 0.5,
    "another_output": 0.5,
    "symmetry": 1.0,
    "colours_swapped": 1.0,
    "colours_permuted": 0.5,
    "cropped": 0.25,
    "repeated": 0.25,
    "wrong_shape": 1.0,
    "partly_input": 2.0,
}
"""How often each maker is drawn, relative to the others."""


def draw_distractors(
    rng: np.random.Generator,
    episode: Episode,
    n: int,
    weights: Mapping[str, float] = DEFAULT_WEIGHTS,
    exclude: Iterable[Grid] = (),
) -> list[Grid]:
    """Draw distinct wrong predictions.

    Args:
        rng: source of randomness.
        episode: its right output is known.
        n: how many are wanted.
        weights: how often each maker is drawn; one that is not named is not drawn.
        exclude: grids that must not be drawn, such as wrong predictions that the episode already has.

    Returns:
        Up to ``n`` distinct grids, none equal to the right output; fewer where the makers give no more.

    Raises:
        DataError: if a maker is unknown, or a weight is negative or not finite.
        ValueError: if the right output is not known.
    """
    if episode.output is None:
        raise ValueError(f"{episode.key}: distractors are made from the right output, which is not known")
    names, probabilities = shares(weights, MAKERS, "distractor_weights")
    if not names:
        return []
    seen = {grid_key(grid) for grid in (episode.output, *exclude)}
    grids: list[Grid] = []
    makers, misses = [MAKERS[name] for name in names], [0] * len(names)
    reach = np.cumsum(probabilities).tolist()
    while len(grids) < n and makers:
        drawn = min(bisect(reach, rng.random() * reach[-1]), len(makers) - 1)
        grid = makers[drawn](rng, episode)
        if grid is not None and (key := grid_key(grid)) not in seen:
            seen.add(key)
            grids.append(np.ascontiguousarray(grid, dtype=np.int8))
            misses[drawn] = 0
            continue
        misses[drawn] += 1
        if misses[drawn] == MISSES:
            del makers[drawn], misses[drawn]
            probabilities = np.delete(probabilities, drawn)
            reach = np.cumsum(probabilities).tolist()
    return grids


def _other_colours(rng: np.random.Generator, present: NDArray[np.int8], colours: NDArray[np.int8]) -> NDArray[np.int8]:
    """Draw, for each present colour, another one of the sorted ``colours``, which include all present ones."""
    steps = rng.integers(1, len(colours), np.shape(present))
    return colours[(np.searchsorted(colours, present) + steps) % len(colours)]


def _colours(*grids: Grid) -> NDArray[np.int8]:
    counts = sum(np.bincount(grid.ravel(), minlength=N_COLOURS) for grid in grids)
    return np.flatnonzero(counts).astype(np.int8)


def _task_colours(episode: Episode) -> NDArray[np.int8]:
    """Colours that a person would expect in an output of this task; all ten where the task shows a single one."""
    outputs = [p.known_output for p in episode.demonstrations]
    colours = _colours(episode.known_output, episode.query, *outputs)
    return colours if len(colours) > 1 else np.arange(N_COLOURS, dtype=np.int8)
