"""Grid encoders: a grid as text and back, by small classes that nest.

Every decoder is strict: it gives a grid only for text that is exactly that grid's encoding, so that a model's malformed
answer is never taken for another grid.
"""

import re
import unicodedata
from abc import ABC, abstractmethod

import numpy as np

from lightning_arc.arc.grid import Grid, as_grid
from lightning_arc.errors import DataError

FULL_WIDTH_DIGITS = "０１２３４５６７８９"
"""Digits as other characters; Qwen's tokenizer keeps each apart, as it does with ASCII digits."""


MAX_REPEATS = 10
"""Most times that `RepeatNumberEncoder` writes a digit; prompts become this many times longer."""


class DecodeError(ValueError):
    """A text is not exactly the encoding of a grid."""


class GridEncoder(ABC):
    """Writes grids as text; `encode` and `decode` are each other's inverse."""

    symbols: str = "0123456789"
    """Characters that cells are written with."""
    row_mark: str = "\n"
    """Text in the last token of every row except the grid's last; in the first token where it is no line break."""

    @abstractmethod
    def encode(self, grid: Grid) -> str:
        """Return the text of a grid."""

    @abstractmethod
    def _parse(self, text: str) -> Grid:
        """Parse a text leniently; `decode` refuses the grid if `encode` would write it differently."""

    def decode(self, text: str) -> Grid:
        """Return the grid whose encoding is ``text``.

        Raises:
            DecodeError: if there is none.
        """
        try:
            grid = self._parse(text)
        except (DataError, DecodeError, ValueError, IndexError) as error:
            raise DecodeError(f"not a grid: {error}") from error
        if self.encode(grid) != text:
            raise DecodeError("not a grid: it is not written as this encoder writes it")
        return grid


class MinimalGridEncoder(GridEncoder):
    """A digit a cell, a line a row."""

    def encode(self, grid: Grid) -> str:
        height, width = grid.shape
        text = np.full((height, width + 1), ord("\n"), np.uint8)
        text[:, :width] = grid
        text[:, :width] += ord("0")
        return text.tobytes()[:-1].decode("ascii")

    def _parse(self, text: str) -> Grid:
        return as_grid([[_digit(c) for c in line] for line in text.split("\n")])

    def __str__(self) -> str:
        return "MinimalGridEncoder()"


class GridWithSeparationEncoder(GridEncoder):
    """A digit a cell with a separator between cells, a line a row.

    Args:
        separator: what stands between two cells; no digit and no line break.
    """

    def __init__(self, separator: str = "|") -> None:
        if not separator or re.search(r"[\d\n]", separator):
            raise DataError(
                f"GridWithSeparationEncoder: separator {separator!r:.40} must be text without digits or line breaks"
            )
        self.separator = separator

    def encode(self, grid: Grid) -> str:
        return "\n".join(map(self.separator.join, _MINIMAL.encode(grid).split("\n")))

    def _parse(self, text: str) -> Grid:
        return as_grid([[_digit(c) for c in line.split(self.separator)] for line in text.split("\n")])

    def __str__(self) -> str:
        return f"GridWithSeparationEncoder({self.separator!r})"


class RepeatNumberEncoder(GridEncoder):
    """A cell's digit several times, a line a row.

    Args:
        n: how many times each digit is written, 1 to 10.
    """

    def __init__(self, n: int = 3) -> None:
        if not 1 <= n <= MAX_REPEATS:
            raise DataError(f"RepeatNumberEncoder: n is {n!r:.40}, it must be 1 to {MAX_REPEATS}")
        self.n = n

    def encode(self, grid: Grid) -> str:
        height, width = grid.shape
        text = np.full((height, width * self.n + 1), ord("\n"), np.uint8)
        text[:, :-1] = np.repeat(grid, self.n, axis=1) + ord("0")
        return text.tobytes()[:-1].decode("ascii")

    def _parse(self, text: str) -> Grid:
        return as_grid([[_digit(c) for c in line[:: self.n]] for line in text.split("\n")])

    def __str__(self) -> str:
        return f"RepeatNumberEncoder({self.n})"


class ReplaceNumberEncoder(GridEncoder):
    """The digits of another cell encoder as other characters.

    Args:
        encoder: writes the cells; it must add no digits of its own, so row numbers and shapes stand outside.
        symbols: ten different characters for the colours 0 to 9, none of which the encoder writes itself.
    """

    def __init__(self, encoder: GridEncoder | None = None, symbols: str = FULL_WIDTH_DIGITS) -> None:
        if len(symbols) != 10 or len(set(symbols)) != 10 or not symbols.isprintable() or re.search("[0-9 ]", symbols):
            raise DataError(
                f"ReplaceNumberEncoder: symbols {symbols!r:.40} must be ten different characters, no digits or spaces"
            )
        # Tokenizers normalize their text; two symbols that become one character could not be told apart again.
        if not unicodedata.is_normalized("NFC", "".join(one + other for one in symbols for other in symbols)):
            raise DataError(f"ReplaceNumberEncoder: symbols {symbols!r:.40} join when they stand side by side")
        self.encoder = MinimalGridEncoder() if encoder is None else encoder
        written = set(self.encoder.encode(np.full((2, 3), 7, np.int8)))
        if written & set("0123456789") != {"7"}:
            raise DataError(f"ReplaceNumberEncoder: {self.encoder} does not write cells alone, it must stand outside")
        if written & set(symbols):
            raise DataError(f"ReplaceNumberEncoder: {self.encoder} writes {min(written & set(symbols))!r} itself")
        self.symbols, self.row_mark = symbols, self.encoder.row_mark
        self._to = str.maketrans("0123456789", symbols)
        self._back = str.maketrans(symbols, "0123456789")

    def encode(self, grid: Grid) -> str:
        return self.encoder.encode(grid).translate(self._to)

    def _parse(self, text: str) -> Grid:
        if re.search("[0-9]", text):
            raise DecodeError("a plain digit among replaced ones")
        return self.encoder.decode(text.translate(self._back))

    def __str__(self) -> str:
        symbols = "" if self.symbols == FULL_WIDTH_DIGITS else f", {self.symbols!r}"
        return f"ReplaceNumberEncoder({self.encoder}{symbols})"


class _Around(GridEncoder):
    """An encoder that adds something around another's text."""

    def __init__(self, encoder: GridEncoder | None = None) -> None:
        self.encoder = MinimalGridEncoder() if encoder is None else encoder
        self.symbols, self.row_mark = self.encoder.symbols, self.encoder.row_mark

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.encoder})"


class RowNumberEncoder(_Around):
    """Each line begins with its number, from 1, and a space."""

    def encode(self, grid: Grid) -> str:
        return "\n".join([f"{i} {line}" for i, line in enumerate(self.encoder.encode(grid).split("\n"), 1)])

    def _parse(self, text: str) -> Grid:
        return self.encoder.decode("\n".join(line.split(" ", 1)[1] for line in text.split("\n")))


class GridCodeBlockEncoder(_Around):
    """A fenced code block around the lines."""

    def encode(self, grid: Grid) -> str:
        return f"```grid\n{self.encoder.encode(grid)}\n```"

    def _parse(self, text: str) -> Grid:
        return self.encoder.decode("\n".join(text.split("\n")[1:-1]))


class GridShapeEncoder(_Around):
    """A fenced code block whose first line holds height and width."""

    def encode(self, grid: Grid) -> str:
        return f"```grid shape: {grid.shape[0]}x{grid.shape[1]}\n{self.encoder.encode(grid)}\n```"

    def _parse(self, text: str) -> Grid:
        return self.encoder.decode("\n".join(text.split("\n")[1:-1]))


class CompactGridEncoder(GridEncoder):
    """Height and width as one token each, then each row's number as one token and a digit a cell.

    For the small grid vocabulary. A model finds the same row of another grid by its number instead of by counting.
    """

    row_mark = "r"

    def encode(self, grid: Grid) -> str:
        rows = "".join(f"<r{n}>{row}" for n, row in enumerate(_MINIMAL.encode(grid).split("\n"), 1))
        return f"<h{grid.shape[0]}><w{grid.shape[1]}>{rows}"

    def _parse(self, text: str) -> Grid:
        return _MINIMAL.decode("\n".join(re.split(r"<r\d+>", text)[1:]))

    def __str__(self) -> str:
        return "CompactGridEncoder()"


_MINIMAL = MinimalGridEncoder()

ENCODERS: dict[str, type[GridEncoder]] = {
    encoder.__name__: encoder
    for encoder in (
        MinimalGridEncoder,
        GridWithSeparationEncoder,
        RepeatNumberEncoder,
        ReplaceNumberEncoder,
        RowNumberEncoder,
        GridCodeBlockEncoder,
        GridShapeEncoder,
        CompactGridEncoder,
    )
}


def _digit(character: str) -> int:
    if len(character) != 1 or character not in "0123456789":
        raise DecodeError(f"{character!r} is not a digit")
    return ord(character) - ord("0")
