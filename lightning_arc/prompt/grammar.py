"""The grammar of written grids: which next tokens can still lead to a valid grid.

A grid of a given shape is a fixed sequence of tokens with places for its cells. So the tokens so far fit some of the
900 shapes, and a token is allowed if it comes next in one of these.
"""

import numpy as np
from numpy.typing import NDArray

from lightning_arc.arc.grid import MAX_SIDE
from lightning_arc.errors import DataError
from lightning_arc.prompt.prompt_encoder import PromptEncoder

CELL, REPEAT, NOTHING = -1, -2, -3
"""Entries of the table that are no token: any colour, the previous colour once more, and places behind the end."""


class Grammar:
    """The allowed next tokens of partly written grids. Each row is one of several grids that are written in parallel.

    Args:
        prompt_encoder: writes grids.

    Raises:
        DataError: if a cell of its encoder is not one token.
    """

    def __init__(self, prompt_encoder: PromptEncoder) -> None:
        if prompt_encoder.colour_ids is None:
            name = prompt_encoder.grid_encoder
            raise DataError(f"model.decoding.constrained: {name} writes a cell in several tokens, set it to false")
        self.colours = prompt_encoder.colour_ids
        sides = range(1, MAX_SIDE + 1)
        templates = [prompt_encoder.grid_template(height, width) for height in sides for width in sides]
        self.lengths = np.array([len(template.ids) + 1 for template in templates])
        self.table = np.full((len(templates), self.lengths.max()), NOTHING, np.int32)
        for row, template in zip(self.table, templates, strict=True):
            row[: len(template.ids)] = template.ids
            row[template.cells] = REPEAT
            row[template.cells[:: template.repeats]] = CELL
            row[len(template.ids)] = prompt_encoder.end_id

    def start(self, n: int, room: int) -> NDArray[np.bool_]:
        """Return the shapes that ``n`` rows of at most ``room`` tokens, end included, may become: ``(n, 900)``."""
        return np.repeat((self.lengths <= room)[None], n, 0)

    def allowed(
        self, place: int, shapes: NDArray[np.bool_], before: NDArray[np.int64], n_tokens: int
    ) -> NDArray[np.bool_]:
        """Return which tokens may stand at a place.

        Args:
            place: how many tokens each row has.
            shapes: ``(n, 900)`` shapes that each row may still become.
            before: ``(n,)`` the last token of each row.
            n_tokens: size of the vocabulary.

        Returns:
            ``(n, n_tokens)``.
        """
        column = self.table[:, place]
        allowed = np.zeros((len(shapes), n_tokens), bool)
        for value in np.unique(column[shapes.any(0)]).tolist():
            rows = np.flatnonzero(shapes[:, column == value].any(1))
            if value == CELL:
                allowed[np.ix_(rows, self.colours)] = True
            elif value == REPEAT:
                allowed[rows, before[rows]] = True
            elif value != NOTHING:
                allowed[rows, value] = True
        return allowed

    def advance(
        self, place: int, shapes: NDArray[np.bool_], before: NDArray[np.int64], chosen: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Return the ``(n, 900)`` shapes that rows may still become once ``chosen`` stands at a place."""
        column = self.table[:, place]
        fits = chosen[:, None] == column
        fits |= np.isin(chosen, self.colours)[:, None] & (column == CELL)
        fits |= (chosen == before)[:, None] & (column == REPEAT)
        return shapes & fits
