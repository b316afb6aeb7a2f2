"""The curve of accuracy against compute, as a picture inside a page."""

import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from lightning_arc.reporting.tables import short

STYLE = """
:root{--line0:#1668b8;--line1:#b4480f;--line2:#7a3fa8;--line3:#0d7a5f;--line4:#8a6d00}
@media(prefers-color-scheme:dark){:root{--line0:#6db1f5;--line1:#f0935c;--line2:#c79bee;--line3:#4fd0ab;--line4:#d8b93a}}
svg.curve{outline:0;width:100%;max-width:56rem;height:auto;font:12px system-ui,sans-serif;margin:1rem 0}
.curve text{fill:var(--soft)}.curve .name{fill:var(--ink);font-weight:500}.curve .grid{stroke:var(--faint)}
.curve .path{fill:none;stroke-width:2}.curve .still{stroke:var(--soft);stroke-dasharray:5 4}
"""
"""What the picture takes from the page's style sheet, beside its ``--ink``, ``--soft`` and ``--faint``."""

WIDTH, HEIGHT = 900, 330
LEFT, TOP, BOTTOM, GAP = 52, 62, 48, 40  # around the two panels
PANEL = (WIDTH - LEFT - GAP - 12) // 2
MARKS = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0",
    "M-3.5,-3.5h7v7h-7z",
    "M0,-5L4.5,3.5H-4.5z",
    "M0,-5L5,0L0,5L-5,0z",
    "M-4.5,-3.5H4.5L0,5z",
)
"""Shapes of the points, one a method as the colours are."""


def curve_svg(methods: Mapping[str, Mapping[str, Any]]) -> str:
    """Draw top-1 and top-2 accuracy against tokens, a line a method that asks a model, voting as a level.

    Args:
        methods: by name, what ``metrics.json`` holds of them.

    Returns:
        An ``<svg>`` element; an empty string where no method has two points, or outputs are unknown.
    """
    curves = {name: [p for p in m.get("curve", ()) if p["tokens"] > 0] for name, m in methods.items()}
    curves = {name: points for name, points in curves.items() if points and points[0]["top1"] is not None}
    if max(map(len, curves.values()), default=0) < 2:
        return ""
    vote = methods.get("vote")
    drawn = [point[f"top{k}"] for points in curves.values() for point in points for k in (1, 2)]
    drawn += [vote[f"top{k}"] for k in (1, 2)] if vote else []
    y = _Percent(min(drawn), max(drawn))
    tokens = [point["tokens"] for points in curves.values() for point in points]
    panels = ""
    for k in (1, 2):
        x = _Tokens(min(tokens), max(tokens), LEFT + (k - 1) * (PANEL + GAP))
        panels += _axes(k, x, y)
        if vote:
            level = y.place(vote[f"top{k}"])
            panels += (
                f'<path class="still" d="M{x.left},{level:.1f}h{PANEL}"><title>vote: {_share(vote, k)}</title></path>'
            )
        panels += "".join(_line(number, name, points, k, x, y) for number, (name, points) in enumerate(curves.items()))
    keys = [*curves, *(["vote"] if vote else [])]
    return (
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Accuracy against tokens">'
        f"{_legend(keys, len(curves))}{panels}</svg>"
    )


class _Percent:
    """The vertical axis: shares, with a line at every tenth or fifth."""

    def __init__(self, low: float, high: float) -> None:
        self.low = max(0, math.floor(low * 10 - 0.2))
        self.high = min(10, max(math.ceil(high * 10 + 0.2), self.low + 2))
        step = 1 if self.high - self.low <= 6 else 2
        self.ticks = [tenth / 10 for tenth in range(self.low, self.high + 1) if tenth % step == 0]

    def place(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (10 * value - self.low) / (self.high - self.low)


class _Tokens:
    """The horizontal axis of a panel: tokens, logarithmic."""

    def __init__(self, least: int, most: int, left: int) -> None:
        self.left, self.least, self.span = left, least, math.log(max(most / least, 1.01))
        decades = range(int(math.log10(least)), int(math.log10(most)) + 1)
        steps = (1, 2, 5) if most < 200 * least else (1,)
        inside = [step * 10**decade for decade in decades for step in steps if least <= step * 10**decade <= most]
        self.ticks = inside if len(inside) > 1 else [least, most]

    def place(self, value: int) -> float:
        return self.left + 12 + (PANEL - 24) * math.log(value / self.least) / self.span


def _axes(k: int, x: _Tokens, y: _Percent) -> str:
    bottom = HEIGHT - BOTTOM
    lines = "".join(
        f'<path class="grid" d="M{x.left},{y.place(tick):.1f}h{PANEL}"/>'
        f'<text x="{x.left - 6}" y="{y.place(tick) + 4:.1f}" text-anchor="end">{100 * tick:.0f}%</text>'
        for tick in y.ticks
    )
    for tick in x.ticks:
        name = re.sub(r"\.?0+(?=[kMG])", "", short(tick)) if "." in short(tick) else short(tick)
        lines += (
            f'<path class="grid" d="M{x.place(tick):.1f},{bottom}v5"/>'
            f'<text x="{x.place(tick):.1f}" y="{bottom + 19}" text-anchor="middle">{name}</text>'
        )
    middle = x.left + PANEL // 2
    return (
        f'{lines}<text class="name" x="{x.left}" y="{TOP - 14}">top-{k} accuracy</text>'
        f'<text x="{middle}" y="{bottom + 38}" text-anchor="middle">tokens, all test inputs together</text>'
    )


def _line(number: int, name: str, points: Sequence[Mapping[str, Any]], k: int, x: _Tokens, y: _Percent) -> str:
    places = [(x.place(point["tokens"]), y.place(point[f"top{k}"])) for point in points]
    colour = f"var(--line{number % len(MARKS)})"
    path = "L".join(f"{across:.1f},{down:.1f}" for across, down in places)
    marks = ""
    for point, (across, down) in zip(points, places, strict=True):
        views = f"{point['views']} view" + ("" if point["views"] == 1 else "s")
        title = f"{escape(name)}, {views}, {short(point['tokens'])} tokens: {_share(point, k)}"
        marks += (
            f'<path transform="translate({across:.1f},{down:.1f})" d="{MARKS[number % len(MARKS)]}" '
            f'style="fill:{colour}"><title>{title}</title></path>'
        )
    return f'<path class="path" d="M{path}" style="stroke:{colour}"/>{marks}'


def _legend(names: Sequence[str], n_curves: int) -> str:
    made, across = "", LEFT
    for number, name in enumerate(names):
        if number < n_curves:
            colour = f"var(--line{number % len(MARKS)})"
            made += f'<path class="path" d="M{across},16h26" style="stroke:{colour}"/>'
            shape = MARKS[number % len(MARKS)]
            made += f'<path transform="translate({across + 13},16)" d="{shape}" style="fill:{colour}"/>'
        else:
            made += f'<path class="still" d="M{across},16h26"/>'
        made += f'<text class="name" x="{across + 33}" y="20">{escape(name)}</text>'
        across += 55 + 7 * len(name)
    return made


def _share(entry: Mapping[str, Any], k: int) -> str:
    low, high = entry[f"top{k}_ci"]
    return f"{100 * entry[f'top{k}']:.1f}% ({100 * low:.1f} to {100 * high:.1f})"
