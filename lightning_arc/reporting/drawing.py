"""Every picture: grids and episodes for TensorBoard, notebooks and reports.

Figures are made without pyplot, so that any thread may draw and none is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

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

RIGHT, PLAIN, INK, FAINT = "#12833f", "#555555", "#222222", "#dddddd"
_MAP = ListedColormap(COLOURS)
_SIDE, _GAP, _CAPTION, _BAR, _HEADING = 1.75, 0.22, 0.2, 0.07, 0.3  # in inches


def draw_grid(axes: Axes, grid: Grid, title: str = "", frame: str = PLAIN) -> None:
    """Draw a grid into axes, with a title and a frame, which is thick if it has another colour than the usual one."""
    height, width = grid.shape
    axes.imshow(grid, cmap=_MAP, vmin=0, vmax=9, interpolation="nearest")
    line = 0.5 if max(height, width) <= 15 else 0.3
    axes.hlines(np.arange(1, height) - 0.5, -0.5, width - 0.5, "#777777", linewidth=line)
    axes.vlines(np.arange(1, width) - 0.5, -0.5, height - 0.5, "#777777", linewidth=line)
    axes.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    if title:
        axes.set_title(title, fontsize=8, color=INK)
    for spine in axes.spines.values():
        spine.set_color(frame)
        spine.set_linewidth(0.8 if frame == PLAIN else 3)


def draw_episode(episode: Episode, p_correct: Sequence[float] | None = None, max_answers: int = 8) -> Figure:
    """Draw demonstrations and query, and below them the answers, the right one ticked and with a thick green frame.

    Args:
        episode: what to draw.
        p_correct: an estimated probability per answer, nan where there is none; answers are drawn in its order.
        max_answers: most answers drawn; the right one is drawn even if it comes later.
    """
    pairs = [*episode.demonstrations, Pair(episode.query, episode.output)]
    order = list(range(len(episode.answers)))
    if p_correct is not None:
        order = np.argsort(-np.nan_to_num(np.asarray(p_correct, float), nan=-1), kind="stable").tolist()
    panels = [
        _Panel(episode.answers[i].grid, *_caption(n, episode.answers[i], None if p_correct is None else p_correct[i]))
        for n, i in enumerate(order, 1)
        if n <= max_answers or episode.answers[i].correct
    ]
    names = [*(f"example {n}" for n in range(1, len(pairs))), "test"]
    shown = [
        [_Panel(pair.input, f"{name} input") for pair, name in zip(pairs, names, strict=True)],
        [
            _Panel(pair.output, f"{name} output", right=name == "test")
            for pair, name in zip(pairs, names, strict=True)
            if pair.output is not None
        ],
    ]
    columns = max(len(pairs), min(len(panels), 4))
    sections = [(str(episode.key), [row for row in shown if row])]
    if panels:
        sections.append((_summary(order, episode.answers, p_correct is not None), _wrapped(panels, columns)))
    return _draw(sections, columns)


def draw_grids(grids: Sequence[Grid], titles: Sequence[str] = (), columns: int = 8) -> Figure:
    """Draw grids beside each other, each with its title."""
    panels = [_Panel(grid, titles[i] if i < len(titles) else "") for i, grid in enumerate(grids)]
    columns = min(columns, max(len(grids), 1))
    return _draw([("", _wrapped(panels, columns))], columns)


def figure_to_array(figure: Figure) -> np.ndarray:
    """Return a figure as ``(height, width, 3)`` ``uint8``."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def grid_svg(grid: Grid, side: int = 110) -> str:
    """Return a grid as a small SVG picture whose longer side is ``side`` pixels.

    The most frequent colour is one rectangle; of the others, equal cells beside each other are one stroke.
    """
    height, width = grid.shape
    scale = side / max(height, width)
    background = int(np.bincount(grid.ravel()).argmax())
    parts = [f'<path fill="{COLOURS[background]}" d="M0 0h{width}v{height}H0z"/>']
    for colour in np.unique(grid):
        if colour != background:
            parts.append(f'<path stroke="{COLOURS[colour]}" d="{_strokes(grid == colour)}"/>')
    lines = "".join(f"M{x} 0v{height}" for x in range(1, width)) + "".join(f"M0 {y}h{width}" for y in range(1, height))
    if lines:
        parts.append(f'<path stroke="#777" stroke-width="{0.5 / scale:.3f}" d="{lines}"/>')
    size = f'width="{width * scale:.0f}" height="{height * scale:.0f}"'
    return f'<svg {size} viewBox="0 0 {width} {height}" shape-rendering="crispEdges">{"".join(parts)}</svg>'


@dataclass(frozen=True)
class _Panel:
    """A grid with what stands above it: a caption, and a bar that shows a probability."""

    grid: Grid
    caption: str
    right: bool = False
    p: float | None = None

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches; the longer side is the same for every grid."""
        height, width = self.grid.shape
        return _SIDE * width / max(height, width), _SIDE * height / max(height, width)

    @property
    def above(self) -> float:
        """Inches above the grid."""
        return _CAPTION + (0 if self.p is None else _BAR)


def _wrapped(panels: Sequence[_Panel], columns: int) -> list[Sequence[_Panel]]:
    return [panels[start : start + columns] for start in range(0, len(panels), columns)]


def _draw(sections: Sequence[tuple[str, Sequence[Sequence[_Panel]]]], columns: int) -> Figure:
    """Draw sections, each a heading and rows of panels; a row is as high as its highest panel."""
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
            for column, panel in enumerate(row):
                _draw_panel(figure, panel, _GAP + column * (_SIDE + _GAP), top)
            top -= max(p.above + p.size[1] for p in row) + _GAP
    return figure


def _draw_panel(figure: Figure, panel: _Panel, left: float, top: float) -> None:
    """Draw a panel whose upper left corner is given in inches from the figure's lower left corner."""
    width, height = figure.get_size_inches()
    ink, weight = (RIGHT, "bold") if panel.right else (INK, "normal")
    y = (top - _CAPTION + 0.05) / height
    figure.text(left / width, y, panel.caption, fontsize=8, color=ink, weight=weight)
    if panel.p is not None:
        _rectangle(figure, left, top - _CAPTION - 0.03, _SIDE, 0.045, FAINT)
        _rectangle(figure, left, top - _CAPTION - 0.03, _SIDE * np.nan_to_num(panel.p), 0.045, ink)
    w, h = panel.size
    axes = figure.add_axes((left / width, (top - panel.above - h) / height, w / width, h / height))
    draw_grid(axes, panel.grid, frame=RIGHT if panel.right else PLAIN)


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


def _strokes(mask: np.ndarray) -> str:
    """Return path data of strokes of width 1 that cover the true cells, one for every run in a row."""
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
    padded[:, 1:-1] = mask
    change = np.diff(padded, axis=1)
    parts, row, end = [], -1, 0
    for (y, start), (_, stop) in zip(np.argwhere(change == 1), np.argwhere(change == -1), strict=True):
        parts.append(f"M{start} {y}.5h{stop - start}" if y != row else f"m{start - end} 0h{stop - start}")
        row, end = y, stop
    return "".join(parts)
