"""The curve of accuracy against compute."""

from collections.abc import Mapping
from typing import Any

from lightning_arc.reporting.charts import LEFT, WIDTH, Axis, Chart, draw_chart, legend, line, percent_axis
from lightning_arc.reporting.charts import RIGHT as MARGIN
from lightning_arc.reporting.tables import short

ROOM = 1.05
"""Length of the token axis as a multiple of its last point."""


def accuracy_charts(methods: Mapping[str, Mapping[str, Any]]) -> tuple[list[Chart], str]:
    """Draw top-1 and top-2 accuracy against tokens: a line per method that asks a model, and a level for voting.

    Args:
        methods: by name, their entries in ``metrics.json``.

    Returns:
        A chart of each accuracy and the legend of both; none where no method has two points, or outputs are unknown.
    """
    curves = {name: [p for p in m.get("curve", ()) if p["tokens"] > 0] for name, m in methods.items()}
    curves = {name: points for name, points in curves.items() if points and points[0]["top1"] is not None}
    if max(map(len, curves.values()), default=0) < 2:
        return [], ""
    vote = methods.get("vote")
    most = max(point["tokens"] for points in curves.values() for point in points)
    tokens = Axis("tokens, all test inputs together", 0, most * ROOM, lambda n: short(round(n), trim=True))
    charts = [_chart(k, curves, vote, tokens) for k in (1, 2)]
    return charts, legend(list(curves), "vote, which asks no model" if vote else None)


def _chart(k: int, curves: Mapping[str, list[Mapping[str, Any]]], vote: Mapping[str, Any] | None, x: Axis) -> Chart:
    y = percent_axis(f"top-{k} accuracy")
    parts, rows = [], []
    if vote:
        level, title = y.up(vote[f"top{k}"]), f"vote: {_share(vote, k)}"
        rows.append(["vote", "0", "0", _share(vote, k)])
        parts.append(f'<path class="level" d="M{LEFT},{level:.1f}H{WIDTH - MARGIN}"><title>{title}</title></path>')
    for number, (name, points) in enumerate(curves.items()):
        cells = [[name, str(p["views"]), short(p["tokens"]), _share(p, k)] for p in points]
        places = [(x.across(p["tokens"]), y.up(p[f"top{k}"])) for p in points]
        titles = [f"{name}, {v} view{'' if v == '1' else 's'}, {n} tokens: {share}" for _, v, n, share in cells]
        parts.append(line(number, places, titles))
        rows += cells
    title = f"Top-{k} accuracy against compute"
    svg = draw_chart(f"{title}; the same figures are in the table below", x, y, *parts)
    return Chart(title, svg, ("method", "views", "tokens", f"top-{k} (95% interval)"), rows)


def _share(entry: Mapping[str, Any], k: int) -> str:
    low, high = entry[f"top{k}_ci"]
    return f"{100 * entry[f'top{k}']:.1f}% ({100 * low:.1f} to {100 * high:.1f})"
