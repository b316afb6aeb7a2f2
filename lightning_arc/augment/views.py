"""Symmetry views of a task: the eight reflections and rotations, colour permutations, and demonstration order.

A view is applied to every grid alike, and a grid that a model writes under a view is brought back exactly. Functions
never write into a grid they are given, but may return that grid itself; treat every grid as read-only.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from lightning_arc.arc.grid import N_COLOURS, Grid
from lightning_arc.arc.task import Episode, Pair, PairKey

N_SYMMETRIES = 8
SYMMETRY_NAMES = (
    "as it is",
    "turned 90",
    "turned 180",
    "turned 270",
    "mirrored",
    "mirrored, turned 90",
    "mirrored, turned 180",
    "mirrored, turned 270",
)
"""What each symmetry does: mirrored left to right first, then turned by so many degrees against the clock."""

ALL_COLOURS = tuple(range(N_COLOURS))

# Written as slices because np.rot90 takes several times as long for grids as small as these.
_DIHEDRAL: tuple[Callable[[Grid], Grid], ...] = (
    lambda grid: grid,
    lambda grid: grid.T[::-1],
    lambda grid: grid[::-1, ::-1],
    lambda grid: grid.T[:, ::-1],
    lambda grid: grid[:, ::-1],
    lambda grid: grid.T,
    lambda grid: grid[::-1],
    lambda grid: grid.T[::-1, ::-1],
)


def dihedral(grid: Grid, element: int) -> Grid:
    """Apply one of the eight symmetries of the square: ``element % 4`` quarter turns, mirrored first from 4 on."""
    return np.ascontiguousarray(_DIHEDRAL[element](grid))


def inverse_dihedral(element: int) -> int:
    """Return the symmetry that undoes another; those with a mirroring undo themselves."""
    return element if element >= 4 else -element % 4


def permute_colours(grid: Grid, colours: NDArray[np.int8]) -> Grid:
    """Replace colour ``c`` by ``colours[c]`` everywhere."""
    return colours.take(grid)


def inverse_colours(colours: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return the permutation that undoes another."""
    return np.argsort(colours).astype(np.int8)


def draw_colours(rng: np.random.Generator, keep_background_probability: float = 0.9) -> NDArray[np.int8]:
    """Draw a permutation of the ten colours.

    Args:
        rng: source of randomness.
        keep_background_probability: how often colour 0 is held at 0; else all ten are permuted, which leaves it at 0
            by chance one time in ten.

    Returns:
        ``(10,)`` ``int8``; colour ``c`` becomes the value at ``c``.
    """
    if rng.random() < keep_background_probability:
        return np.concatenate([[0], rng.permutation(N_COLOURS - 1) + 1]).astype(np.int8)
    return rng.permutation(N_COLOURS).astype(np.int8)


@dataclass(frozen=True)
class View:
    """One way of showing an episode.

    Args:
        symmetry: 0 to 7, see `dihedral`.
        colours: what each of the ten colours becomes.
        order: which demonstration is shown at each place; ``None`` leaves their order.

    Raises:
        ValueError: if it could not be undone: no such symmetry, or colours or order are no permutation.
    """

    symmetry: int = 0
    colours: tuple[int, ...] = ALL_COLOURS
    order: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.symmetry < N_SYMMETRIES:
            raise ValueError(f"symmetry is {self.symmetry}, expected 0 to {N_SYMMETRIES - 1}")
        if sorted(self.colours) != [*ALL_COLOURS]:
            raise ValueError(f"colours are {self.colours}, expected a permutation of 0 to {N_COLOURS - 1}")
        if self.order is not None and sorted(self.order) != [*range(len(self.order))]:
            raise ValueError(f"order is {self.order}, expected a permutation of 0 to {len(self.order) - 1}")

    def __str__(self) -> str:
        parts = [] if self.symmetry == 0 else [SYMMETRY_NAMES[self.symmetry]]
        if self.colours != ALL_COLOURS:
            parts.append("colours " + "".join(map(str, self.colours)))
        if self.order is not None and self.order != tuple(range(len(self.order))):
            parts.append("order " + " ".join(map(str, self.order)))
        return ", ".join(parts) or SYMMETRY_NAMES[0]

    def apply_grid(self, grid: Grid) -> Grid:
        """Return a grid as this view shows it."""
        return dihedral(permute_colours(grid, self._colours), self.symmetry)

    def invert_grid(self, grid: Grid) -> Grid:
        """Return the grid that this view shows as ``grid``."""
        return dihedral(permute_colours(grid, self._inverse_colours), inverse_dihedral(self.symmetry))

    def apply(self, episode: Episode) -> Episode:
        """Return an episode as this view shows it: every grid alike, answers in their order.

        Raises:
            ValueError: if the view orders another number of demonstrations.
        """
        if self.order is not None:
            if len(self.order) != len(episode.demonstrations):
                n, found = len(self.order), len(episode.demonstrations)
                raise ValueError(f"{episode.key}: has {found} demonstrations, the view orders {n}")
            episode = replace(episode, demonstrations=tuple(episode.demonstrations[i] for i in self.order))
        return episode.map(self.apply_grid, self.apply_grid)

    @cached_property
    def _colours(self) -> NDArray[np.int8]:
        return np.array(self.colours, np.int8)

    @cached_property
    def _inverse_colours(self) -> NDArray[np.int8]:
        return inverse_colours(self._colours)


IDENTITY = View()
"""The view that shows an episode as it is."""


def draw_view(
    rng: np.random.Generator,
    n_demonstrations: int,
    *,
    symmetry: bool = True,
    colours: bool = True,
    order: bool = True,
    keep_background_probability: float = 0.9,
) -> View:
    """Draw a view.

    Args:
        rng: source of randomness.
        n_demonstrations: how many demonstrations the episode has.
        symmetry: whether reflections and rotations are drawn.
        colours: whether colours are permuted.
        order: whether demonstrations are reordered.
        keep_background_probability: see `draw_colours`.
    """
    return View(
        int(rng.integers(N_SYMMETRIES)) if symmetry else 0,
        tuple(draw_colours(rng, keep_background_probability).tolist()) if colours else ALL_COLOURS,
        tuple(rng.permutation(n_demonstrations).tolist()) if order else None,
    )


def key_seed(key: PairKey) -> int:
    """Return a number that, together with a seed, gives each pair its own random draws."""
    return crc32(str(key).encode())


def common_views(n: int, n_demonstrations: int, seed: int, key: PairKey) -> list[View]:
    """Return the views under which all candidates of a test input are judged.

    They are a pure function of the arguments, and the first ``n`` of more. The first shows the task as it is; each
    block of eight holds every symmetry once.

    Args:
        n: how many.
        n_demonstrations: demonstrations of the task.
        seed: at least 0; gives other colours, orders and symmetry orders.
        key: the test input.
    """
    rng = np.random.default_rng([seed, key_seed(key)])
    views: list[View] = []
    while len(views) < n:
        symmetries = rng.permutation(N_SYMMETRIES).tolist()
        if not views:
            symmetries = [0, *(s for s in symmetries if s)]
        views.extend(replace(draw_view(rng, n_demonstrations, symmetry=False), symmetry=s) for s in symmetries)
    return [IDENTITY, *views[1:]][:n]


def swap_query(episode: Episode, i: int, key: PairKey) -> Episode:
    """Exchange the query with demonstration ``i``, whose output becomes the right one.

    Answers are about one query, so they are attached after the swap, those that were proposed for the new key.

    Args:
        episode: its output is known, and it has no answers.
        i: which demonstration becomes the query; the old query takes its place.
        key: the pair that this demonstration is; where demonstrations were left out or reordered, its index is not
            its place here.

    Raises:
        ValueError: if the query's output is unknown, or the episode has answers, which are about the old query.
    """
    if episode.output is None or episode.answers:
        raise ValueError(f"{episode.key}: only an episode with a known output and no answers can be swapped")
    pair = episode.demonstrations[i]
    demonstrations = list(episode.demonstrations)
    demonstrations[i] = Pair(episode.query, episode.output)
    return replace(episode, key=key, demonstrations=tuple(demonstrations), query=pair.input, output=pair.output)
