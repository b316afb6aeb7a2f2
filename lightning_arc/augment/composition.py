"""Task composition: a new task from an old one by a transformation of all its inputs, or of all its outputs.

Knows grids and episodes. Knows nothing of prompts, tokens or models. What is done to the outputs is done to every
answer too, so that wrong predictions stay wrong and right ones stay right.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lightning_arc.arc.grid import MAX_SIDE, N_COLOURS, Grid, same_grid
from lightning_arc.arc.task import Episode
from lightning_arc.augment.views import N_SYMMETRIES, dihedral
from lightning_arc.augment.weights import shares

DEFAULT_WEIGHTS: dict[str, float] = {"geometric": 4.0, "padding": 1.0, "upscale": 1.0, "mirror": 2.0}
"""How often each family is drawn, relative to the others."""

MAX_FRAME = 3
"""The most rows or columns that padding adds to one side of a grid."""

MAX_FACTOR = 3
"""The most cells that upscaling makes of one in a direction."""


@dataclass(frozen=True)
class Composition:
    """A transformation of one side of a task.

    Args:
        family: a name of `DEFAULT_WEIGHTS`.
        on_inputs: whether inputs are transformed, else outputs and answers.
        parameters: what the family's function takes after the grid: `dihedral`, `pad`, `upscale` or `mirror`.
    """

    family: str
    on_inputs: bool
    parameters: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.family} {' '.join(map(str, self.parameters))} of {'inputs' if self.on_inputs else 'outputs'}"

    def apply_grid(self, grid: Grid) -> Grid:
        """Return the transformed grid; other grids become other grids."""
        return _FUNCTIONS[self.family](grid, *self.parameters)


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


_FUNCTIONS: dict[str, Callable[..., Grid]] = {
    "geometric": dihedral,
    "padding": pad,
    "upscale": upscale,
    "mirror": mirror,
}


def draw_composition(
    rng: np.random.Generator, episode: Episode, weights: Mapping[str, float] = DEFAULT_WEIGHTS
) -> Composition | None:
    """Draw a transformation that changes shapes or places, and keeps every grid within 30 x 30.

    Its parameters are the same for all grids of the side, so that they can be learned from the demonstrations. Where
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
    families, probabilities = shares(weights, _FUNCTIONS, "compose_new_task_weights")
    on_inputs = bool(rng.integers(2))
    while families:
        drawn = int(rng.choice(len(families), p=probabilities / probabilities.sum()))
        for side in (on_inputs, not on_inputs):
            parameters = _draw_parameters(rng, families[drawn], *_largest(episode, side))
            if parameters is not None:
                return Composition(families[drawn], side, parameters)
        families, probabilities = families[:drawn] + families[drawn + 1 :], np.delete(probabilities, drawn)
    return None


def compose(episode: Episode, composition: Composition) -> Episode:
    """Apply a transformation to one side of an episode; wrong answers that become right by it are dropped."""
    if composition.on_inputs:
        return episode.map(composition.apply_grid, lambda grid: grid)
    composed = episode.map(lambda grid: grid, composition.apply_grid)
    if composed.output is None:
        return composed
    answers = tuple(a for a in composed.answers if a.correct is not False or not same_grid(a.grid, composed.output))
    return replace(composed, answers=answers)


def maybe_compose(
    rng: np.random.Generator,
    episode: Episode,
    probability: float,
    weights: Mapping[str, float] = DEFAULT_WEIGHTS,
) -> tuple[Episode, Composition | None]:
    """Compose an episode with a probability.

    With probability 0 nothing is drawn from ``rng``, so that everything drawn after it is as if there were no
    composition.

    Returns:
        The episode and what was done to it; the episode as it was and ``None`` if nothing was done.
    """
    if probability <= 0 or rng.random() >= probability:
        return episode, None
    composition = draw_composition(rng, episode, weights)
    return (episode if composition is None else compose(episode, composition)), composition


def _largest(episode: Episode, on_inputs: bool) -> tuple[int, int]:
    if on_inputs:
        grids = [p.input for p in episode.demonstrations] + [episode.query]
    else:
        grids = [p.output for p in episode.demonstrations] + [a.grid for a in episode.answers]
        grids += [] if episode.output is None else [episode.output]
    return max((g.shape[0] for g in grids), default=1), max((g.shape[1] for g in grids), default=1)


def _draw_parameters(rng: np.random.Generator, family: str, height: int, width: int) -> tuple[int, ...] | None:
    if family == "geometric":
        return (int(rng.integers(1, N_SYMMETRIES)),)
    rows, columns = _OPTIONS[family][height], _OPTIONS[family][width]
    if len(rows) * len(columns) == 1:
        return None
    # The first option of each direction leaves it as it is, so that number 0 would change nothing.
    row, column = divmod(int(rng.integers(1, len(rows) * len(columns))), len(columns))
    parameters = (*rows[row], *columns[column])
    return (*parameters, int(rng.integers(N_COLOURS))) if family == "padding" else parameters


def _options(options: Sequence[tuple[int, ...]], grown: Callable[..., int]) -> list[list[tuple[int, ...]]]:
    return [[option for option in options if grown(side, *option) <= MAX_SIDE] for side in range(MAX_SIDE + 1)]


# What can be done to one direction of a family's grids, by the longest side in that direction.
_OPTIONS: dict[str, list[list[tuple[int, ...]]]] = {
    "padding": _options(
        [(before, after) for before in range(MAX_FRAME + 1) for after in range(MAX_FRAME + 1)],
        lambda side, before, after: before + side + after,
    ),
    "upscale": _options([(f,) for f in range(1, MAX_FACTOR + 1)], lambda side, factor: side * factor),
    "mirror": _options([(0,), (1,), (2,)], lambda side, place: side * 2 if place else side),
}
