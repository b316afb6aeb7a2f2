"""Task composition: a new task from an old one by a transformation of all its inputs, of all its outputs, or of both.

A transformation of the outputs is applied to every answer too. Every transformation is one-to-one, so that wrong
predictions stay wrong and right ones right.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_arc.arc.grid import MAX_SIDE, N_COLOURS, Grid
from lightning_arc.arc.task import Episode
from lightning_arc.augment.views import N_SYMMETRIES, dihedral
from lightning_arc.augment.weights import shares

Parameters = tuple[int, ...]

DEFAULT_WEIGHTS: dict[str, float] = {
    "geometric": 4.0,
    "padding": 1.0,
    "upscale": 1.0,
    "mirror": 2.0,
    "tile": 1.0,
    "frame": 1.0,
    "colour_swap": 1.0,
    "invert": 1.0,
    "both_sides": 1.0,
}
"""How often each family is drawn, relative to the others."""

MAX_PADDING = 3
"""The most rows or columns that padding adds to one side of a grid."""

MAX_FACTOR = 3
"""The largest upscaling factor, and the most copies in tiling, per direction."""

MAX_THICKNESS = 2
"""The most cells that a frame is thick."""


@dataclass(frozen=True)
class Composition:
    """A transformation of the inputs, the outputs, or both sides of a task.

    Args:
        family: a name of `DEFAULT_WEIGHTS`.
        inputs: arguments of the family's function after an input grid; ``None`` leaves inputs as they are.
        outputs: the same for output grids and answers.
    """

    family: str
    inputs: Parameters | None
    outputs: Parameters | None

    def __str__(self) -> str:
        sides = (("inputs", self.inputs), ("outputs", self.outputs))
        return f"{self.family} of " + " and ".join(
            f"{name} ({' '.join(map(str, parameters))})" for name, parameters in sides if parameters is not None
        )

    def on_input(self, grid: Grid) -> Grid:
        """Return an input grid of the new task."""
        return grid if self.inputs is None else FUNCTIONS[self.family](grid, *self.inputs)

    def on_output(self, grid: Grid) -> Grid:
        """Return an output grid, or an answer, of the new task."""
        return grid if self.outputs is None else FUNCTIONS[self.family](grid, *self.outputs)


def pad(grid: Grid, top: int, bottom: int, left: int, right: int, colour: int) -> Grid:
    """Add rows and columns of one colour around a grid."""
    height, width = grid.shape
    padded = np.full((top + height + bottom, left + width + right), colour, grid.dtype)
    padded[top : top + height, left : left + width] = grid
    return padded


def upscale(grid: Grid, rows: int, columns: int) -> Grid:
    """Make each cell a block of ``rows`` by ``columns`` cells."""
    return grid.repeat(rows, axis=0).repeat(columns, axis=1)


def mirror(grid: Grid, vertical: int, horizontal: int) -> Grid:
    """Append a grid's mirror image below (1) or above (2), and to the right (1) or left (2); 0 leaves a direction."""
    for axis, place in ((0, vertical), (1, horizontal)):
        image = grid[::-1] if axis == 0 else grid[:, ::-1]
        if place:
            grid = np.concatenate([grid, image] if place == 1 else [image, grid], axis=axis)
    return grid


def tile(grid: Grid, rows: int, columns: int) -> Grid:
    """Lay ``rows`` by ``columns`` whole copies of a grid beside each other."""
    height, width = grid.shape
    tiled = np.empty((rows, height, columns, width), grid.dtype)
    tiled[:] = grid[None, :, None]
    return tiled.reshape(rows * height, columns * width)


def frame(grid: Grid, thickness: int, colour: int, gap: int, gap_colour: int) -> Grid:
    """Draw a frame of one colour around a grid, with ``gap`` rows and columns of another between them."""
    return pad(pad(grid, gap, gap, gap, gap, gap_colour), *(thickness,) * 4, colour)


def swap_colours(grid: Grid, one: int, other: int) -> Grid:
    """Exchange two colours."""
    colours = np.arange(N_COLOURS, dtype=np.int8)
    colours[[one, other]] = other, one
    return colours.take(grid)


FUNCTIONS: dict[str, Callable[..., Grid]] = {
    "geometric": dihedral,
    "padding": pad,
    "upscale": upscale,
    "mirror": mirror,
    "tile": tile,
    "frame": frame,
    "colour_swap": swap_colours,
    "invert": swap_colours,
    "both_sides": dihedral,
}
"""What each family does to a grid; one-to-one for given parameters."""


def draw_composition(
    rng: np.random.Generator, episode: Episode, weights: Mapping[str, float] = DEFAULT_WEIGHTS
) -> Composition | None:
    """Draw a transformation that keeps every grid within 30 x 30.

    Its parameters are the same for all grids of a side, so that they can be learned from the demonstrations. Where
    the drawn family does not fit on the drawn side, it is put on the other, and where it fits on neither, another
    family is drawn.

    Args:
        rng: source of randomness.
        episode: what it is to be applied to.
        weights: how often each family is drawn; a family that is not named is not drawn.

    Returns:
        The transformation, or ``None`` if nothing that can be drawn fits.

    Raises:
        DataError: if a family is unknown, or a weight is negative or not finite.
    """
    families, probabilities = shares(weights, FUNCTIONS, "compose_new_task_weights")
    on_inputs = bool(rng.integers(2))
    while families:
        drawn = int(np.searchsorted(np.cumsum(probabilities)[:-1], rng.random() * probabilities.sum(), side="right"))
        family = families[drawn]
        if family == "both_sides":
            one = int(rng.integers(N_SYMMETRIES))
            return Composition(family, (one,), ((one + int(rng.integers(1, N_SYMMETRIES))) % N_SYMMETRIES,))
        for side in (on_inputs, not on_inputs):
            parameters = _draw_parameters(rng, family, episode, side)
            if parameters is not None:
                return Composition(family, parameters if side else None, None if side else parameters)
        families, probabilities = families[:drawn] + families[drawn + 1 :], np.delete(probabilities, drawn)
    return None


def compose(episode: Episode, composition: Composition) -> Episode:
    """Apply a transformation to an episode, its answers included."""
    return episode.map(composition.on_input, composition.on_output)


def maybe_compose(
    rng: np.random.Generator,
    episode: Episode,
    probability: float,
    weights: Mapping[str, float] = DEFAULT_WEIGHTS,
) -> tuple[Episode, Composition | None]:
    """Compose an episode with a probability.

    With probability 0 nothing is drawn from ``rng``, so that later draws are the same as without composition.

    Returns:
        The new episode and its transformation, or the episode as it was and ``None``.
    """
    if probability <= 0 or rng.random() >= probability:
        return episode, None
    composition = draw_composition(rng, episode, weights)
    return (episode if composition is None else compose(episode, composition)), composition


def _grids(episode: Episode, on_inputs: bool) -> list[Grid]:
    """Return the input or the output grids of an episode, without its answers."""
    if on_inputs:
        return [*(p.input for p in episode.demonstrations), episode.query]
    outputs = [p.known_output for p in episode.demonstrations]
    return outputs if episode.output is None else [*outputs, episode.output]


def _colours(grids: Sequence[Grid]) -> list[int]:
    counts = np.zeros(N_COLOURS, np.int64)
    for grid in grids:
        counts += np.bincount(grid.ravel(), minlength=N_COLOURS)
    return np.flatnonzero(counts).tolist()


def _draw_parameters(rng: np.random.Generator, family: str, episode: Episode, on_inputs: bool) -> Parameters | None:
    if family == "geometric":
        return (int(rng.integers(1, N_SYMMETRIES)),)
    grids = _grids(episode, on_inputs)
    if family in ("colour_swap", "invert"):
        colours = _colours(grids)
        if family == "invert":
            return tuple(colours) if len(colours) == 2 else None
        if not colours:
            return None
        one = colours[rng.integers(len(colours))]
        return (one, (one + int(rng.integers(1, N_COLOURS))) % N_COLOURS)
    if not on_inputs:
        grids += [answer.grid for answer in episode.answers]
    height, width = (max((grid.shape[axis] for grid in grids), default=1) for axis in (0, 1))
    if family == "frame":
        room = (MAX_SIDE - max(height, width)) // 2
        if room < 1:
            return None
        thickness = int(rng.integers(1, min(MAX_THICKNESS, room) + 1))
        gap = int(rng.integers(2)) if thickness < room else 0
        return (thickness, int(rng.integers(N_COLOURS)), gap, int(rng.integers(N_COLOURS)) if gap else 0)
    rows, columns = _OPTIONS[family][height], _OPTIONS[family][width]
    if len(rows) * len(columns) == 1:
        return None
    # The first option of each direction leaves it as it is, so that number 0 would change nothing.
    row, column = divmod(int(rng.integers(1, len(rows) * len(columns))), len(columns))
    parameters = (*rows[row], *columns[column])
    return (*parameters, int(rng.integers(N_COLOURS))) if family == "padding" else parameters


def _options(options: Sequence[Parameters], grown: Callable[..., int]) -> list[list[Parameters]]:
    return [[option for option in options if grown(side, *option) <= MAX_SIDE] for side in range(MAX_SIDE + 1)]


_FACTORS = _options([(f,) for f in range(1, MAX_FACTOR + 1)], lambda side, factor: side * factor)

# What can be done to one direction of a family's grids, by the longest side in that direction.
_OPTIONS: dict[str, list[list[Parameters]]] = {
    "padding": _options(
        [(before, after) for before in range(MAX_PADDING + 1) for after in range(MAX_PADDING + 1)],
        lambda side, before, after: before + side + after,
    ),
    "upscale": _FACTORS,
    "tile": _FACTORS,
    "mirror": _options([(0,), (1,), (2,)], lambda side, place: side * 2 if place else side),
}
