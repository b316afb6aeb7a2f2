"""Grid positions: for each token of a prompt, its grid, its row, and its place in the row.

They are the three parts of the multimodal rotary position embedding (M-RoPE: Wang et al., 2024). Grids and the texts
before, between and behind them have the numbers 1, 3, 5 … and 0, 2, 4 …, so that an output always lies two behind its
input. A grid's rows are the lines that it is written in, and columns are counted in tokens, so that two grids have the
same row and column wherever they have the same cell. A text is one row, however long. A token's position depends only
on the tokens up to it, so that a branch has the positions of its separate sequence, and a scored answer the positions
that it has when it is generated.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from lightning_arc.arc.grid import MAX_SIDE, Grid
from lightning_arc.errors import DataError, first_line
from lightning_arc.prompt.grid_encoders import GridEncoder
from lightning_arc.prompt.templates import PromptTemplate, RenderedPrompt, Segment
from lightning_arc.prompt.tokenizer import is_gguf, pretrained_source, resolve_model_path
from lightning_arc.prompt.tree import TokenTree
from lightning_arc.prompt.turns import TurnTokenizer

Positions = Literal["sequence", "grid"]
"""Positions of a model from scratch: one number per token (its place in the sequence) or three (grid, row, column)."""

LINE_BREAKS = ("\n", "\N{LATIN CAPITAL LETTER C WITH DOT ABOVE}", "<0x0A>")
"""How vocabularies write a line break: as it is, as byte-level tokenizers do, and as SentencePiece does."""


def has_grid_positions(config: Mapping[str, Any]) -> bool:
    """Whether a model's configuration has rotary positions in three parts (``mrope_section``)."""
    text = config.get("text_config") or config
    return "mrope_section" in (text.get("rope_parameters") or text.get("rope_scaling") or {})


def model_has_grid_positions(model_path: str | None, positions: Positions) -> bool:
    """Whether a model takes grid positions.

    Args:
        model_path: the model, whose configuration is read; ``None`` for one from scratch.
        positions: kind of positions of a model from scratch.

    Raises:
        DataError: if its configuration cannot be read.
    """
    if model_path is None:
        return positions == "grid"
    path = resolve_model_path(model_path)
    if is_gguf(path):
        return False
    try:
        config, _ = PretrainedConfig.get_config_dict(pretrained_source(path)[0])
    except Exception as error:  # damaged files make the library fail in many ways
        raise DataError(f"{path}: no configuration could be read: {first_line(error)}") from error
    return has_grid_positions(config)


class GridRows:
    """Rows and columns of the tokens of a written grid.

    Rows are aligned at their first cells: where row 9 begins with fewer tokens than row 10, its columns begin later.

    Args:
        tokenizer: of the prompts.
        encoder: how grids are written.
        encode: returns the token ids of a grid.
        kept: ids of a trimmed vocabulary.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        encoder: GridEncoder,
        encode: Callable[[Grid], NDArray[np.int32]],
        kept: NDArray[np.int32] | None = None,
    ) -> None:
        self._ends = encoder.row_mark == "\n"
        marks = LINE_BREAKS if self._ends else (encoder.row_mark,)
        vocabulary = tokenizer.get_vocab()
        self._marked = np.zeros(max(vocabulary.values()) + 1, bool)
        self._marked[[i for token, i in vocabulary.items() if any(mark in token for mark in marks)]] = True
        if kept is not None:
            self._marked = self._marked[kept]
        self._shifts = np.zeros(1, np.int64)
        zeros, ones = (encode(np.full((MAX_SIDE, 1), colour, np.int8)) for colour in (0, 1))
        if len(zeros) == len(ones):
            cells = self(zeros)[zeros != ones]
            rows, places = np.unique(cells[:, 0], return_index=True)
            shifts = np.zeros(cells[:, 0].max() + 2, np.int64)
            shifts[rows] = cells[places, 1].max() - cells[places, 1]
            self._shifts = shifts

    def __call__(self, ids: NDArray[np.integer]) -> NDArray[np.int32]:
        """Return ``(…, n, 2)`` rows and columns of the ``(…, n)`` tokens of complete or partial grids."""
        marked, begins = self._marked[ids], np.zeros(ids.shape, bool)
        begins[..., 1:] = marked[..., :-1] if self._ends else marked[..., 1:]
        places = np.arange(ids.shape[-1])
        rows = begins.cumsum(-1)
        columns = places - np.maximum.accumulate(np.where(begins, places, 0), -1)
        columns += self._shifts[rows.clip(max=len(self._shifts) - 1)]
        return np.stack([rows, columns], -1).astype(np.int32)


Base = tuple[int, int]


class Placed(NamedTuple):
    """The positions of a part's tokens, as if it stood first in a prompt.

    Args:
        positions: ``(n, 3)`` ``int32``; do not write into them.
        grid: whether it begins with a grid.
        n_text: tokens of its text.
    """

    positions: NDArray[np.int32]
    grid: bool
    n_text: int


@lru_cache(4096)
def placed_text(n: int) -> Placed:
    """Return the positions of ``n`` tokens of text."""
    positions = np.zeros((n, 3), np.int32)
    positions[:, 2] = np.arange(n)
    return Placed(positions, False, n)


def placed_grid(cells: NDArray[np.int32], n_text: int) -> Placed:
    """Return the positions of a grid, whose tokens' ``(n, 2)`` rows and columns are given, and of text behind it."""
    grid = np.concatenate([np.ones((len(cells), 1), np.int32), cells], 1)
    return Placed(np.concatenate([grid, placed_text(n_text).positions + np.array([2, 0, 0], np.int32)]), True, n_text)


def tree_positions(prefix: Sequence[Placed], branches: Sequence[Sequence[Placed]]) -> list[NDArray[np.int32]]:
    """Return the positions of a tree's tokens.

    Args:
        prefix: positions of the prompt's parts, including its last token, with which every branch begins.
        branches: for each branch, positions of its parts behind the prompt.

    Returns:
        ``(P, 3)`` of the prefix without its last token, then ``(length, 3)`` of every branch.
    """
    bases, state = _bases(prefix)
    last = prefix[-1]._replace(positions=prefix[-1].positions[-1:]), bases[-1]
    segments, n = [*prefix], sum(len(segment.positions) for segment in prefix)
    spans = [(0, n - 1)]
    for branch in branches:
        segments += [last[0], *branch]
        bases += [last[1], *_bases(branch, *state)[0]]
        spans.append((n, n + 1 + sum(len(segment.positions) for segment in branch)))
        n = spans[-1][1]
    positions = _moved(segments, bases)
    return [positions[start:stop] for start, stop in spans]


def placed_parts(segments: Sequence[Placed]) -> NDArray[np.int32]:
    """Return the ``(n, 3)`` positions of the tokens of parts one behind the other."""
    return _moved(segments, _bases(segments)[0])


def _bases(segments: Sequence[Placed], number: int = 0, column: int = 0) -> tuple[list[Base], tuple[int, int]]:
    """Return each part's offset in grid number and column, behind ``column`` tokens of text, and that at the end."""
    bases: list[Base] = []
    for segment in segments:
        if segment.grid:
            bases.append((number, 0))
            number, column = number + 2, segment.n_text
        else:
            bases.append((number, column))
            column += segment.n_text
    return bases, (number, column)


def _moved(segments: Sequence[Placed], bases: Sequence[Base]) -> NDArray[np.int32]:
    lengths = [len(segment.positions) for segment in segments]
    positions = np.concatenate([segment.positions for segment in segments])
    numbers, columns = np.array(bases, np.int32).T
    positions[:, 0] += numbers.repeat(lengths)
    positions[:, 2] += columns.repeat(lengths)
    return positions


def positions_of_turns(
    turns: TurnTokenizer, rows: GridRows, template: PromptTemplate, segments: Sequence[Segment], tail: str
) -> NDArray[np.int32]:
    """Return the ``(n, 3)`` positions of the tokens of parts and a text behind them that are tokenized together."""
    text, places = "", []
    for segment in segments:
        if segment.grid is not None:
            places += [len(text), len(text) + len(template.encoder.encode(segment.grid))]
        text += template.text_of([segment])
    ids, stops = turns.encode(text + tail, places)
    stops = [0, *stops, len(ids)]
    found = [placed_text(stops[1]).positions]
    for number, i in enumerate(range(1, len(stops) - 1, 2)):
        own = placed_grid(rows(ids[stops[i] : stops[i + 1]]), stops[i + 2] - stops[i + 1]).positions
        found.append(own + np.array([2 * number, 0, 0], np.int32))
    return np.concatenate(found)


def tree_of_turns_with_positions(
    tree: TokenTree, turns: TurnTokenizer, rows: GridRows, template: PromptTemplate, rendered: RenderedPrompt
) -> TokenTree:
    """Return a tree of a prompt whose turns are tokenized whole with the positions of its tokens."""
    n, wholes = len(tree.prefix), []
    for text in rendered.branches:
        written = () if text.written is None else (text.written,)
        tail = template.end if text.verdict is None else text.verdict
        wholes.append(positions_of_turns(turns, rows, template, (*rendered.prefix, *written, *text.shown), tail))
    branches = [
        replace(branch, positions=whole[n : n + len(branch.tokens)])
        for branch, whole in zip(tree.branches, wholes, strict=True)
    ]
    return replace(tree, positions=wholes[0][:n], branches=tuple(branches))
