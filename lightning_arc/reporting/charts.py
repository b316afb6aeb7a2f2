"""Small charts as SVG inside a page: axes, legends, and lines that differ by more than colour."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 46  # around the plotted area
MARKS = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0",
    "M-3.5,-3.5h7v7h-7z",
    "M0,-5L4.5,3.5H-4.5z",
    "M0,-5L5,0L0,5L-5,0z",
    "M-4.5,-3.5H4.5L0,5z",
)
"""Shapes of points, one a series as the colours are."""


@dataclass(frozen=True)
class Chart:
    """A picture with its words.

    Args:
        title: what it shows.
        svg: the picture.
        columns: column titles of a table of the same figures.
        rows: cells of that table.
        note: how the chart is to be read.
    """

    title: str
    svg: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Axis:
    """Values along one side.

    Args:
        title: name of the values.
        low: value at the beginning.
        high: value at the end.
        name: gives the text of a tick.
        ticks: values with a tick; round ones if not given.
    """

    title: str
    low: float
    high: float
    name: Callable[[float], str] = "{:g}".format
    ticks: Sequence[float] = field(default=())

    @property
    def marked(self) -> list[float]:
        """Values with a tick."""
        return list(self.ticks) or round_steps(self.low, self.high)

    def across(self, value: float) -> float:
        """Return the place of a value from the left."""
        return LEFT + (WIDTH - LEFT - RIGHT) * self._part(value)

    def up(self, value: float) -> float:
        """Return the place of a value from the top."""
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * self._part(value)

    def _part(self, value: float) -> float:
        return (value - self.low) / ((self.high - self.low) or 1.0)


def percent_axis(title: str) -> Axis:
    """Return an axis of shares from 0% to 100%."""
    return Axis(title, 0.0, 1.0, "{:.0%}".format, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))


def round_steps(low: float, high: float, most: int = 6) -> list[float]:
    """Return round values within a range, as many as there is room for."""
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= most)
    return [round(n * step, 12) for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def draw_chart(label: str, x: Axis, y: Axis, *parts: str) -> str:
    """Return a picture with its axes.

    Args:
        label: description for screen readers.
        x: values along the bottom.
        y: values along the left side.
        parts: what is drawn between them.
    """
    bottom, middle = HEIGHT - BOTTOM, (LEFT + WIDTH - RIGHT) / 2
    lines = "".join(
        f'<path class="rule" d="M{LEFT},{y.up(tick):.1f}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 6}" y="{y.up(tick) + 4:.1f}" text-anchor="end">{escape(y.name(tick))}</text>'
        for tick in y.marked
    )
    lines += "".join(
        f'<path class="rule" d="M{x.across(tick):.1f},{bottom}v5"/>'
        f'<text x="{x.across(tick):.1f}" y="{bottom + 18}" text-anchor="middle">{escape(x.name(tick))}</text>'
        for tick in x.marked
    )
    lines += f'<text x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x.title)}</text>'
    side = f'<text transform="translate(12,{(TOP + bottom) / 2:.0f})rotate(-90)" text-anchor="middle">'
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{lines}{side}{escape(y.title)}</text>{''.join(parts)}</svg>"
    )


def line(number: int, places: Sequence[tuple[float, float]], titles: Sequence[str]) -> str:
    """Return a series: points of one shape and colour, and the line through them.

    Args:
        number: number of the series, which chooses shape and colour.
        places: places of the points, from the left and from the top.
        titles: tooltip of each point.
    """
    path = "L".join(f"{across:.1f},{down:.1f}" for across, down in places)
    marks = "".join(
        f'<path class="fill{number % len(MARKS)}" transform="translate({across:.1f},{down:.1f})" '
        f'd="{MARKS[number % len(MARKS)]}"><title>{escape(title)}</title></path>'
        for (across, down), title in zip(places, titles, strict=True)
    )
    return f'<path class="line line{number % len(MARKS)}" d="M{path}"/>{marks}'


def legend(names: Sequence[str], level: str | None = None) -> str:
    """Return the legend of charts, as an HTML list.

    Args:
        names: one per series.
        level: name of a dashed line, where there is one.
    """
    keys = [
        f'<li><svg class="key" viewBox="0 0 30 12" aria-hidden="true"><path class="line line{number % len(MARKS)}" '
        f'd="M1,6h28"/><path class="fill{number % len(MARKS)}" transform="translate(15,6)" '
        f'd="{MARKS[number % len(MARKS)]}"/></svg>{escape(name)}</li>'
        for number, name in enumerate(names)
    ]
    if level is not None:
        dashes = '<path class="level" d="M1,6h28"/>'
        keys.append(f'<li><svg class="key" viewBox="0 0 30 12" aria-hidden="true">{dashes}</svg>{escape(level)}</li>')
    return f'<ul class="keys">{"".join(keys)}</ul>'


def line_chart(
    title: str, x: Axis, y: Axis, series: Mapping[str, Sequence[tuple[float, float]]], note: str = ""
) -> tuple[Chart, str]:
    """Draw series as lines.

    Args:
        title: what the chart shows.
        x: values along the bottom.
        y: values along the left side.
        series: by name, points from left to right; points beyond an axis are drawn at its end.
        note: how it is to be read.

    Returns:
        The chart and its legend, which is empty for a single series.
    """

    def place(point: tuple[float, float]) -> tuple[float, float]:
        return x.across(min(max(point[0], x.low), x.high)), y.up(min(max(point[1], y.low), y.high))

    rows = [[name, x.name(point[0]), f"{point[1]:.4g}"] for name, points in series.items() for point in points]
    parts = [
        line(number, [place(point) for point in points], [f"{name}, {x.name(a)}: {b:.4g}" for a, b in points])
        for number, (name, points) in enumerate(series.items())
    ]
    svg = draw_chart(title, x, y, *parts)
    return Chart(title, svg, ("series", x.title, y.title), rows, note), legend(list(series)) if len(series) > 1 else ""
