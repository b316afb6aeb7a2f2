"""Token ids of a prompt's parts: grids by template, texts from memory.

A grid of a given shape always has the same ids but for its cells, each of which is one token. So the ids of a shape,
and of the text behind it, are made once, and a grid is written by putting its colours into a copy.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lightning_arc.arc.grid import N_COLOURS, Grid, as_grid
from lightning_arc.prompt.grid_encoders import GridEncoder
from lightning_arc.prompt.pieces import PieceTokenizer
from lightning_arc.prompt.positions import GridRows, Placed, placed_grid, placed_text
from lightning_arc.prompt.templates import Segment
from lightning_arc.prompt.turns import AnswerTokenizer

MAX_TEMPLATES = 4096
MAX_TEXTS = 4096


@dataclass(frozen=True, eq=False)
class Template:
    """The ids of all grids of one shape.

    Args:
        ids: ``(length,)`` ``int32`` ids of the grid and the text behind it, with the colour 0 in every cell.
        cells: ``(height * width * repeats,)`` places of the cells, row by row.
        repeats: how many tokens each cell has, all of its colour.
    """

    ids: NDArray[np.int32]
    cells: NDArray[np.intp]
    repeats: int


class SegmentTokenizer:
    """Returns the ids of a prompt's part, equal to those of its text.

    Args:
        pieces: the tokenizer.
        encoder: how grids are written.
    """

    def __init__(self, pieces: PieceTokenizer | AnswerTokenizer, encoder: GridEncoder) -> None:
        self.pieces, self.encoder = pieces, encoder
        self.rows: GridRows | None = None
        """Rows and columns of grids' tokens, for `placed`."""
        self.colour_ids = self._colour_ids()
        self._make_memories()

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name not in ("template", "text", "_placed")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._make_memories()

    def _make_memories(self) -> None:
        self.template = lru_cache(MAX_TEMPLATES)(self._template)
        self.text = lru_cache(MAX_TEXTS)(self.pieces.array)
        self._placed = lru_cache(MAX_TEMPLATES)(self._placed_template)

    def ids(self, segment: Segment) -> NDArray[np.int32]:
        """Return the ``int32`` ids of a part; do not write into them."""
        if segment.grid is not None:
            return self.grid(segment.grid, segment.text)
        return self.pieces.array(segment.text) if segment.free else self.text(segment.text)

    def placed(self, segment: Segment) -> Placed:
        """Return the positions of a part's tokens."""
        if segment.grid is None:
            return placed_text(len(self.ids(segment)))
        if self.colour_ids is not None:
            return self._placed(*segment.grid.shape, segment.text)
        return self._placed_behind(self.ids(segment), self.encoder.encode(segment.grid), segment.text)

    def grid(self, grid: Grid, text: str = "") -> NDArray[np.int32]:
        """Return the ``int32`` ids of a grid and the text behind it."""
        if self.colour_ids is None:
            return self.pieces.array(self.encoder.encode(grid) + text)
        template = self.template(*grid.shape, text)
        ids = template.ids.copy()
        colours = self.colour_ids.take(grid).ravel()
        ids[template.cells] = colours if template.repeats == 1 else colours.repeat(template.repeats)
        return ids

    def check(self) -> None:
        """Disable templates if a grid made from one does not have the ids of its text, as with some tokenizers."""
        for height, width in ((1, 1), (1, 7), (3, 4), (12, 11), (30, 30)):
            grid = as_grid((np.arange(height * width) * 7 // 3 % N_COLOURS).reshape(height, width))
            if self.colour_ids is not None:
                ids = self.pieces.array(self.encoder.encode(grid))
                if not np.array_equal(self.grid(grid), ids):
                    self.colour_ids = None

    def _template(self, height: int, width: int, text: str) -> Template:
        zeros, ones = (
            self.pieces.array(self.encoder.encode(np.full((height, width), colour, np.int8)) + text)
            for colour in (0, 1)
        )
        cells = np.flatnonzero(zeros != ones)
        return Template(zeros, cells, len(cells) // (height * width))

    def _placed_template(self, height: int, width: int, text: str) -> Placed:
        grid = self.encoder.encode(np.zeros((height, width), np.int8))
        return self._placed_behind(self.template(height, width, text).ids, grid, text)

    def _placed_behind(self, ids: NDArray[np.int32], grid: str, text: str) -> Placed:
        """Return the positions of a grid's tokens and those of a text; one that both share is the text's."""
        assert self.rows is not None  # without them nothing is placed
        made = self.pieces.tokenizer(grid + text, add_special_tokens=False, return_offsets_mapping=True)
        ends = np.maximum.accumulate([end for _, end in made.offset_mapping])
        n = int(np.searchsorted(ends, len(grid), "right"))
        return placed_grid(self.rows(ids[:n]), len(ids) - n)

    def _colour_ids(self) -> NDArray[np.int32] | None:
        """Return the ``(10,)`` ids of the colours; ``None`` where a cell is not always one token of its own."""
        rows = [self.pieces.array(self.encoder.encode(as_grid([[c, c], [c, c]]))) for c in range(N_COLOURS)]
        if len({len(row) for row in rows}) > 1 or not self.pieces.has_symbols:
            return None
        table = np.stack(rows)
        cells = np.flatnonzero((table != table[0]).any(0))
        colours = table[:, cells[0]]
        same = (table[:, cells] == colours[:, None]).all()
        return colours if same and len(cells) % 4 == 0 and len(set(colours.tolist())) == N_COLOURS else None
