"""Every picture of grids: figures for TensorBoard and notebooks, and the palettes and marks that reports share.

Figures are made without pyplot, so that any thread may draw and none is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from lightning_arc.arc import Episode, Grid, LabeledCandidate, Pair

COLOURS = (
    "#000000",
    "#1e93ff",
    "#f93c31",
    "#4fcc30",
    "#ffdc00",
    "#999999",
    "#e53aa3",
    "#ff851b",
    "#87d8f1",
    "#921231",
)
"""The ten colours that ARC's own pages show."""

SAFE_COLOURS = (
    "#000000",
    "#0631ff",
    "#b3410c",
    "#03ffa5",
    "#ffff00",
    "#949494",
    "#c936d0",
    "#e6b641",
    "#b1daff",
    "#733f34",
)
"""Ten colours of about the same names that colour-blind people can tell apart.

Found by a random search for the greatest least distance (CIE 1976) between two of them, over normal sight and the three
kinds of colour blindness as Machado, Oliveira and Fernandes (2009) simulate them: 32 instead of 10 with `COLOURS`.
"""

PaletteName = Literal["arc", "safe"]
PALETTES: dict[PaletteName, tuple[str, ...]] = {"arc": COLOURS, "safe": SAFE_COLOURS}
"""Palettes by their names in the functions here and in the reports."""

RIGHT, PLAIN, INK, FAINT = "#12833f", "#555555", "#222222", "#dddddd"
_MAPS = {name: ListedColormap(colours) for name, colours in PALETTES.items()}
_SIDE, _GAP, _CAPTION, _BAR, _HEADING = 1.75, 0.22, 0.2, 0.07, 0.3  # in inches


def draw_grid(
    axes: Axes,
    grid: Grid,
    title: str = "",
    frame: str = PLAIN,
    palette: PaletteName = "arc",
    numbers: bool = False,
    reference: Grid | None = None,
) -> None:
    """Draw a grid into axes.

    Args:
        axes: where it goes.
        grid: what is drawn.
        title: what stands above it.
        frame: colour of the frame, which is thick if it is not the usual one.
        palette: the colours.
        numbers: whether each cell shows its number.
        reference: a grid such as the right output; cells that differ from it get a mark.
    """
    height, width = grid.shape
    axes.imshow(grid, cmap=_MAPS[palette], vmin=0, vmax=9, interpolation="nearest")
    line = 0.5 if max(height, width) <= 15 else 0.3
    axes.hlines(np.arange(1, height) - 0.5, -0.5, width - 0.5, "#777777", linewidth=line)
    axes.vlines(np.arange(1, width) - 0.5, -0.5, height - 0.5, "#777777", linewidth=line)
    axes.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    if numbers:
        size = 0.5 * 72 * axes.get_window_extent().height / axes.figure.dpi / height
        for (row, column), cell in np.ndenumerate(grid):
            ink = digit_ink(PALETTES[palette][cell])
            axes.text(column, row, str(cell), fontsize=size, color=ink, ha="center", va="center")
    different = None if reference is None else differing(grid, reference)
    for row, column in [] if different is None else np.argwhere(different):
        for inset, colour in ((0.12, "#000000"), (0.2, "#ffffff")):  # one of the two is visible on any colour
            corner, side = (column - 0.5 + inset, row - 0.5 + inset), 1 - 2 * inset
            axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=colour, linewidth=2 * line))
    if title:
        axes.set_title(title, fontsize=8, color=INK)
    for spine in axes.spines.values():
        spine.set_color(frame)
        spine.set_linewidth(0.8 if frame == PLAIN else 3)


def draw_episode(
    episode: Episode,
    p_correct: Sequence[float] | NDArray[np.floating] | None = None,
    max_answers: int = 8,
    palette: PaletteName = "arc",
    numbers: bool = False,
) -> Figure:
    """Draw demonstrations and query, and below them the answers.

    The right answer is ticked and has a thick green frame; cells of others that differ from it are marked.

    Args:
        episode: what to draw.
        p_correct: an estimated probability per answer, nan where there is none; answers are drawn in its order.
        max_answers: most answers drawn; the right one is drawn even if it comes later.
        palette: the colours.
        numbers: whether each cell shows its number.
    """
    pairs = [*episode.demonstrations, Pair(episode.query, episode.output)]
    order = list(range(len(episode.answers)))
    if p_correct is not None:
        order = np.argsort(-np.nan_to_num(np.asarray(p_correct, float), nan=-1), kind="stable").tolist()
    answers = [
        _CaptionedGrid(
            episode.answers[i].grid,
            *_caption(n, episode.answers[i], None if p_correct is None else p_correct[i]),
            reference=episode.output,
        )
        for n, i in enumerate(order, 1)
        if n <= max_answers or episode.answers[i].correct
    ]
    names = [*(f"example {n}" for n in range(1, len(pairs))), "test"]
    shown = [
        [_CaptionedGrid(pair.input, f"{name} input") for pair, name in zip(pairs, names, strict=True)],
        [
            _CaptionedGrid(pair.output, f"{name} output", right=name == "test")
            for pair, name in zip(pairs, names, strict=True)
            if pair.output is not None
        ],
    ]
    columns = max(len(pairs), min(len(answers), 4))
    sections = [(str(episode.key), [row for row in shown if row])]
    if answers:
        sections.append((_summary(order, episode.answers, p_correct is not None), _wrapped(answers, columns)))
    return _draw(sections, columns, palette, numbers)


def draw_grids(
    grids: Sequence[Grid],
    titles: Sequence[str] = (),
    columns: int = 8,
    palette: PaletteName = "arc",
    numbers: bool = False,
) -> Figure:
    """Draw grids beside each other, each with its title and size."""
    captioned = [_CaptionedGrid(grid, titles[i] if i < len(titles) else "") for i, grid in enumerate(grids)]
    columns = min(columns, max(len(grids), 1))
    return _draw([("", _wrapped(captioned, columns))], columns, palette, numbers)


def figure_to_array(figure: Figure) -> np.ndarray:
    """Return a figure as ``(height, width, 3)`` ``uint8``."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def digit_ink(colour: str) -> str:
    """Return black or white, whichever has more contrast on a ``#rrggbb`` colour (WCAG 2.1's relative luminance)."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return "#000000" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "#ffffff"


def differing(grid: Grid, reference: Grid) -> NDArray[np.bool_] | None:
    """Return which cells differ from those of a reference, ``None`` where the sizes do."""
    return grid != reference if grid.shape == reference.shape else None


def size_name(grid: Grid) -> str:
    """Return rows times columns, such as ``3×4``."""
    return "×".join(map(str, grid.shape))


@dataclass(frozen=True)
class _CaptionedGrid:
    """A grid with what stands above it: a caption, and a bar that shows a probability."""

    grid: Grid
    caption: str
    right: bool = False
    p: float | None = None
    reference: Grid | None = None

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches; the longer side is the same for every grid."""
        height, width = self.grid.shape
        return _SIDE * width / max(height, width), _SIDE * height / max(height, width)

    @property
    def above(self) -> float:
        """Inches above the grid."""
        return _CAPTION + (0 if self.p is None else _BAR)


def _wrapped(grids: list[_CaptionedGrid], columns: int) -> list[list[_CaptionedGrid]]:
    return [grids[start : start + columns] for start in range(0, len(grids), columns)]


def _draw(
    sections: Sequence[tuple[str, Sequence[Sequence[_CaptionedGrid]]]],
    columns: int,
    palette: PaletteName,
    numbers: bool,
) -> Figure:
    """Draw sections, each a heading and rows of captioned grids; a row is as high as its highest one."""
    height = _GAP / 2
    for heading, rows in sections:
        height += _HEADING if heading else 0
        height += sum(max(p.above + p.size[1] for p in row) + _GAP for row in rows)
    width = columns * (_SIDE + _GAP) + _GAP
    figure = Figure(figsize=(width, height), facecolor="white")
    top = height - _GAP / 2
    for n, (heading, rows) in enumerate(sections):
        if heading:
            if n:
                _rectangle(figure, _GAP, top, width - 2 * _GAP, 0.012, PLAIN)
            figure.text(_GAP / width, (top - 0.21) / height, heading, fontsize=10, weight="bold", color=INK)
            top -= _HEADING
        for row in rows:
            for column, captioned in enumerate(row):
                _draw_captioned(figure, captioned, (_GAP + column * (_SIDE + _GAP), top), palette, numbers)
            top -= max(p.above + p.size[1] for p in row) + _GAP
    return figure


def _draw_captioned(
    figure: Figure, captioned: _CaptionedGrid, corner: tuple[float, float], palette: PaletteName, numbers: bool
) -> None:
    """Draw a captioned grid whose upper left corner is given in inches from the figure's lower left corner."""
    (left, top), (width, height) = corner, figure.get_size_inches()
    ink, weight = (RIGHT, "bold") if captioned.right else (INK, "normal")
    y = (top - _CAPTION + 0.05) / height
    figure.text(left / width, y, captioned.caption, fontsize=8, color=ink, weight=weight)
    size = size_name(captioned.grid)
    figure.text((left + _SIDE) / width, y, size, fontsize=7, color=PLAIN, ha="right")
    if captioned.p is not None:
        _rectangle(figure, left, top - _CAPTION - 0.03, _SIDE, 0.045, FAINT)
        _rectangle(figure, left, top - _CAPTION - 0.03, _SIDE * np.nan_to_num(captioned.p), 0.045, ink)
    w, h = captioned.size
    axes = figure.add_axes((left / width, (top - captioned.above - h) / height, w / width, h / height))
    draw_grid(axes, captioned.grid, "", RIGHT if captioned.right else PLAIN, palette, numbers, captioned.reference)


def _rectangle(figure: Figure, left: float, bottom: float, w: float, h: float, colour: str) -> None:
    width, height = figure.get_size_inches()
    corner = (left / width, bottom / height)
    figure.add_artist(Rectangle(corner, w / width, h / height, facecolor=colour, edgecolor="none"))


def _summary(order: Sequence[int], answers: Sequence[LabeledCandidate], ranked: bool) -> str:
    right = [rank for rank, i in enumerate(order, 1) if answers[i].correct]
    text = f"{len(order)} answers" + (" in the model's order" if ranked else "")
    if right:
        return f"{text}, the right one is number {right[0]}"
    return text + ("" if any(a.correct is None for a in answers) else ", none of them right")


def _caption(rank: int, answer: LabeledCandidate, p: float | None) -> tuple[str, bool, float | None]:
    mark = {True: " ✓", False: "", None: " ?"}[answer.correct]
    votes = f"{answer.votes} vote{'' if answer.votes == 1 else 's'}"
    text = f"{rank}{mark}   {votes}" if p is None else f"{rank}{mark}   p {p:.2f}   {votes}"
    return text, bool(answer.correct), p
