"""Distractors: hard wrong predictions made from a task alone.

Knows grids and episodes. Knows nothing of prompts, tokens or models. Each maker is a small pure function of a source of
randomness and an episode whose right output is known; it returns ``None`` where it does not apply, and may return the
right output, which `draw_distractors` refuses.
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from lightning_arc.arc.grid import MAX_SIDE, N_COLOURS, Grid, grid_key
from lightning_arc.arc.task import Episode
from lightning_arc.augment.views import N_SYMMETRIES, dihedral
from lightning_arc.augment.weights import shares

Maker = Callable[[np.random.Generator, Episode], Grid | None]

MAX_CHANGED_CELLS = 4
"""The most cells in which a near miss differs from the right output."""

DRAWS_PER_DISTRACTOR = 8
"""How often a maker is tried for each wanted grid, since some do not apply and some give what is there already."""


def few_cells_changed(rng: np.random.Generator, episode: Episode) -> Grid:
    """The right output with one to four cells of another colour, one that the output has where it has several."""
    grid = episode.output.copy()
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
    return dihedral(episode.output, int(rng.integers(1, N_SYMMETRIES)))


def colours_swapped(rng: np.random.Generator, episode: Episode) -> Grid:
    """The right output with one of its colours and another colour of the task exchanged."""
    own = _colours(episode.output)
    one = own[rng.integers(len(own))]
    other = _other_colours(rng, one, _task_colours(episode))
    mapping = np.arange(N_COLOURS, dtype=np.int8)
    mapping[[one, other]] = other, one
    return mapping[episode.output]


def wrong_shape(rng: np.random.Generator, episode: Episode) -> Grid | None:
    """The right output without its first or last row or column, or with that one doubled."""
    grid, axis = episode.output, int(rng.integers(2))
    last = grid.shape[axis] - 1
    at = 0 if rng.random() < 0.5 else last
    if rng.random() < 0.5:
        return np.delete(grid, at, axis) if last else None
    return np.insert(grid, at, grid.take(at, axis), axis) if last + 1 < MAX_SIDE else None


def partly_input(rng: np.random.Generator, episode: Episode) -> Grid | None:
    """The right output with some of the cells that the rule changes still as in the input.

    They lie at random, or at one end of the grid's rows or columns, as where the rule was carried out half the way.
    """
    if episode.query.shape != episode.output.shape:
        return None
    changed = np.flatnonzero(episode.query != episode.output)
    if len(changed) < 2:
        return None
    manner = rng.integers(3)
    if manner == 0:
        changed = rng.permutation(changed)
    elif manner == 1:
        changed = changed[np.argsort(changed % episode.output.shape[1], kind="stable")]
    left = int(rng.integers(1, len(changed)))
    cells = changed[:left] if rng.random() < 0.5 else changed[-left:]
    grid = episode.output.copy()
    grid.flat[cells] = episode.query.flat[cells]
    return grid


MAKERS: dict[str, Maker] = {
    maker.__name__: maker
    for maker in (
        few_cells_changed,
        the_query,
        another_output,
        symmetry,
        colours_swapped,
        wrong_shape,
        partly_input,
    )
}

DEFAULT_WEIGHTS: dict[str, float] = {
    "few_cells_changed": 4.0,
    "the_query": 0.5,
    "another_output": 0.5,
    "symmetry": 1.0,
    "colours_swapped": 1.0,
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
        exclude: grids that are not to be drawn, such as wrong predictions that are there already.

    Returns:
        Up to ``n`` distinct grids, none equal to the right output; fewer where the task gives no more in ``8 n`` draws.

    Raises:
        DataError: if a maker is unknown, or a weight is negative or not finite.
        ValueError: if the right output is not known.
    """
    if episode.output is None:
        raise ValueError(f"{episode.key}: distractors are made from the right output, which is not known")
    names, probabilities = shares(weights, MAKERS, "distractor_weights")
    if not names:
        return []
    seen, grids = {grid_key(grid) for grid in (episode.output, *exclude)}, []
    for choice in rng.choice(len(names), size=DRAWS_PER_DISTRACTOR * n, p=probabilities):
        if len(grids) == n:
            break
        grid = MAKERS[names[choice]](rng, episode)
        if grid is not None and grid_key(grid) not in seen:
            seen.add(grid_key(grid))
            grids.append(np.ascontiguousarray(grid, dtype=np.int8))
    return grids


def _other_colours(rng: np.random.Generator, present: NDArray[np.int8], colours: NDArray[np.int8]) -> NDArray[np.int8]:
    """Draw for each present colour, which all stand in the sorted ``colours``, another one of these."""
    steps = rng.integers(1, len(colours), np.shape(present))
    return colours[(np.searchsorted(colours, present) + steps) % len(colours)]


def _colours(*grids: Grid) -> NDArray[np.int8]:
    counts = sum(np.bincount(grid.ravel(), minlength=N_COLOURS) for grid in grids)
    return np.flatnonzero(counts).astype(np.int8)


def _task_colours(episode: Episode) -> NDArray[np.int8]:
    """Colours that a person would expect in an output of this task; all ten where the task shows a single one."""
    outputs = [p.output for p in episode.demonstrations]
    colours = _colours(episode.output, episode.query, *outputs)
    return colours if len(colours) > 1 else np.arange(N_COLOURS, dtype=np.int8)
