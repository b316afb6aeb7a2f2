"""Charts of scores and probabilities: a reliability diagram, and histograms of right and wrong candidates' scores."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_arc.ranking.rankers import Ranking
from lightning_arc.ranking.scores import CandidateScores
from lightning_arc.reporting.charts import Axis, Chart, draw_chart, legend, line, percent_axis

BINS = 10
"""Bins of p in the reliability diagram."""

SCORE_BINS = 24
"""Bins of scores in the histogram."""

SCORES_SHOWN = (0.5, 99.5)
"""Percentiles of the scores between which the histogram has its bins; the outermost bins hold scores beyond them."""

Z = 1.96
"""Standard normal quantile of 95% intervals."""


def calibration_charts(
    evidence: Sequence[CandidateScores], rankings: Sequence[Ranking], unit: str
) -> list[tuple[Chart, str]]:
    """Draw the reliability diagram, and the histograms of the scores of right and of wrong candidates.

    Args:
        evidence: one per test input.
        rankings: of one method.
        unit: unit of its scores.

    Returns:
        Charts, each with its legend; fewer where outputs are unknown, or candidates have no score.
    """
    known = [(r, np.array(e.correct, bool)) for e, r in zip(evidence, rankings, strict=True) if e.correct]
    right = np.concatenate([np.zeros(0, bool), *(correct for _, correct in known)])
    p, score = (np.concatenate([np.zeros(0), *(getattr(r, name) for r, _ in known)]) for name in ("p_correct", "score"))
    charts = []
    if np.isfinite(p).any():
        charts.append(_reliability(p[np.isfinite(p)], right[np.isfinite(p)]))
    scored = np.isfinite(score)
    if right[scored].any() and not right[scored].all():
        charts.append(_histograms(score[scored], right[scored], unit))
    return charts


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """Return the 95% interval of a share (Wilson, 1927)."""
    share, room = hits / n, Z**2 / n
    middle, half = share + room / 2, Z * math.sqrt(share * (1 - share) / n + room / (4 * n))
    return max(0.0, (middle - half) / (1 + room)), min(1.0, (middle + half) / (1 + room))


def _reliability(p: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[Chart, str]:
    x, y = percent_axis("p, mean of a tenth"), percent_axis("share that is right")
    place = np.minimum((np.clip(p, 0, 1) * BINS).astype(int), BINS - 1)
    parts = [f'<path class="level" d="M{x.across(0)},{y.up(0)}L{x.across(1)},{y.up(1)}"/>']
    rows, places, titles = [], [], []
    for number in np.unique(place).tolist():
        inside = place == number
        n, hits, mean = int(inside.sum()), int(right[inside].sum()), float(p[inside].mean())
        low, high = wilson_interval(hits, n)
        tenth = f"{number / BINS:.1f} to {(number + 1) / BINS:.1f}"
        cells = [tenth, f"{n:,}", f"{mean:.3f}", f"{hits / n:.1%} ({100 * low:.1f} to {100 * high:.1f})"]
        rows.append(cells)
        places.append((x.across(mean), y.up(hits / n)))
        titles.append(f"p {cells[0]}: {cells[1]} candidates, mean p {cells[2]}, right {cells[3]}")
        parts.append(f'<path class="line line0" d="M{x.across(mean):.1f},{y.up(low):.1f}V{y.up(high):.1f}"/>')
    parts.append(line(0, places, titles))
    title = "Reliability: does p come true?"
    note = "Points on the dashed line: p comes true. Below it p is too sure, above it not sure enough."
    svg = draw_chart(f"{title} The same figures are in the table below", x, y, *parts)
    columns = ("p", "candidates", "mean p", "right (95% interval)")
    return Chart(title, svg, columns, rows, note), legend(["candidates, with 95% intervals"], "p comes true")


def _histograms(score: NDArray[np.float64], right: NDArray[np.bool_], unit: str) -> tuple[Chart, str]:
    names = ("right", "wrong")
    low, high = np.percentile(score, SCORES_SHOWN)
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    edges = np.linspace(low, high, SCORE_BINS + 1)
    counts = [np.histogram(np.clip(score[chosen], low, high), edges)[0] for chosen in (right, ~right)]
    shares = [count / count.sum() for count in counts]
    x = Axis(f"score ({unit})" if unit else "score", float(low), float(high))
    top = max(share.max() for share in shares)
    y = Axis("share of candidates", 0.0, float(top) * 1.05, "{:.0%}".format)
    parts = []
    for number, share in enumerate(shares):
        steps = "".join(f"V{y.up(part):.1f}H{x.across(edge):.1f}" for part, edge in zip(share, edges[1:], strict=True))
        outline = f"M{x.across(low):.1f},{y.up(0):.1f}{steps}V{y.up(0):.1f}"
        parts.append(
            f'<path class="area{number}" d="{outline}z"/><path class="line line{number} dash{number}" d="{outline}"/>'
        )
    digits = max(0, 2 - math.floor(math.log10(high - low)))
    rows = [
        [f"{a:.{digits}f} to {b:.{digits}f}", f"{counts[0][i]:,}", f"{counts[1][i]:,}"]
        for i, (a, b) in enumerate(zip(edges, edges[1:], strict=False))
    ]
    title = "Scores of right and of wrong candidates"
    totals = " and ".join(f"{count.sum():,} {name}" for count, name in zip(counts, names, strict=True))
    note = f"Shares of {totals} candidates; the outermost bins hold all beyond."
    keys = "".join(
        f'<li><svg class="key" viewBox="0 0 30 12" aria-hidden="true"><path class="area{number}" d="M1,1h28v10h-28z"/>'
        f'<path class="line line{number} dash{number}" d="M1,11V1h28v10"/></svg>{name}</li>'
        for number, name in enumerate(names)
    )
    svg = draw_chart(f"{title}; the same figures are in the table below", x, y, *parts)
    return Chart(title, svg, ("score", *names), rows, note), f'<ul class="keys">{keys}</ul>'
