"""Grids in a terminal, two columns per cell: in ARC's colours if the terminal has colours, else as digits."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.color import Color
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from lightning_arc.arc import Grid, same_grid
from lightning_arc.reporting.drawing import COLOURS, digit_ink, size_name


@dataclass(frozen=True)
class Picture:
    """A grid with words above it.

    Args:
        grid: the grid; ``None`` where it is unknown.
        title: text above it.
    """

    grid: Grid | None
    title: str

    def __rich__(self) -> RenderableType:
        if self.grid is None:
            return Group(Text(self.title), Text("unknown", style="dim"))
        return Group(Text(self.title), Text(size_name(self.grid), style="dim"), cells(self.grid))


def cells(grid: Grid) -> Text:
    """Return a grid as text, a line a row."""
    text = Text(no_wrap=True)
    for number, row in enumerate(grid.tolist()):
        text.append("\n" if number else "")
        for colour in row:
            ink = digit_ink(COLOURS[colour])
            text.append(f"{colour} ", Style(color=Color.parse(ink), bgcolor=Color.parse(COLOURS[colour])))
    return text


def side_by_side(pictures: Sequence[Picture], width: int) -> RenderableType:
    """Return pictures beside each other, in as many rows as a terminal of this width needs."""
    rows: list[list[Picture]] = [[]]
    room = width
    for picture in pictures:
        needed = 2 + max(len(picture.title), 7, 0 if picture.grid is None else 2 * picture.grid.shape[1])
        if rows[-1] and needed > room:
            rows.append([])
            room = width
        rows[-1].append(picture)
        room -= needed
    tables = []
    for row in rows:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_row(*row)
        tables.append(Padding(table, (0, 0, 1, 0)))
    return Group(*tables)


def print_pair(console: Console, name: str, given: Grid, output: Grid | None) -> None:
    """Print a pair's input and output."""
    console.print(side_by_side([Picture(given, f"{name} input"), Picture(output, "output")], console.width))


def verdict(grid: Grid, right: Grid | None) -> str:
    """Return the mark of a candidate: right, wrong, or nothing where that is unknown."""
    if right is None:
        return ""
    return " ✓" if same_grid(grid, right) else " ✗"
