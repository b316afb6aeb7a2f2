"""Charts: each point in the place of its figures, axes from zero, and nothing outside of the picture."""

import math
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest

from lightning_arc.arc import Candidate, PairKey
from lightning_arc.ranking.rankers import Ranking
from lightning_arc.ranking.scores import CandidateScores
from lightning_arc.reporting.calibration_charts import calibration_charts, wilson_interval
from lightning_arc.reporting.charts import BOTTOM, HEIGHT, LEFT, TOP, WIDTH, Axis, Chart, round_steps
from lightning_arc.reporting.curve import accuracy_charts

ZERO = HEIGHT - BOTTOM
"""Where an axis that goes up begins."""


def method(shares: list[float], tokens: list[int]) -> dict[str, Any]:
    points = [
        {"views": 2**i, "top1": s, "top1_ci": [s, s], "top2": s, "top2_ci": [s, s], "tokens": t, "seconds": 1.0}
        for i, (s, t) in enumerate(zip(shares, tokens, strict=True))
    ]
    return {"curve": points}


VOTE = {"top1": 0.6, "top1_ci": [0.5, 0.7], "top2": 0.7, "top2_ci": [0.6, 0.8]}


def places(chart: Chart) -> list[tuple[float, float]]:
    """Where the points of a chart are."""
    picture = ElementTree.fromstring(chart.svg)
    marks = [path for path in picture.iter("path") if path.get("transform")]
    return [tuple(map(float, re.findall(r"[-\d.]+", mark.get("transform")))) for mark in marks]


def test_both_axes_of_the_curve_begin_at_zero_and_each_point_stands_where_its_figures_are() -> None:
    (chart, second), legend = accuracy_charts({"vote": VOTE, "a < b": method([0.2, 0.4, 0.9], [100, 500, 1000])})
    points = places(chart)
    tokens = [(x - LEFT) / (points[2][0] - LEFT) for x, _ in points]
    shares = [(ZERO - y) / (ZERO - TOP) for _, y in points]
    assert tokens == pytest.approx([0.1, 0.5, 1], abs=0.001) and shares == pytest.approx([0.2, 0.4, 0.9], abs=0.001)
    picture = ElementTree.fromstring(chart.svg)
    texts = [text.text for text in picture.iter("text")]
    for label in ("top-1 accuracy", "tokens, all test inputs together", "0", "1k", "0%", "100%"):
        assert label in texts, label
    (level,) = (path for path in picture.iter("path") if path.get("class") == "level")
    height = float(level.get("d").split(",")[1].split("H")[0])
    assert (ZERO - height) / (ZERO - TOP) == pytest.approx(0.6, abs=0.001)
    assert "a &lt; b" in legend and "vote" in legend
    assert chart.rows[0] == ["vote", "0", "0", "60.0% (50.0 to 70.0)"]
    assert chart.rows[1] == ["a < b", "1", "100", "20.0% (20.0 to 20.0)"] and len(chart.rows) == 4
    assert second.title == "Top-2 accuracy against compute"


@pytest.mark.parametrize("shares", ([0.0, 0.0], [1.0, 1.0], [0.5, 0.5]))
@pytest.mark.parametrize("tokens", ([7, 8], [5000, 5000], [900, 1_000_000_000]))
def test_any_curve_stays_within_the_picture(shares: list[float], tokens: list[int]) -> None:
    for chart in accuracy_charts({"m": method(shares, tokens)})[0]:
        for x, y in places(chart):
            assert LEFT <= x <= WIDTH and TOP <= y <= ZERO and math.isfinite(x + y)
        for text in ElementTree.fromstring(chart.svg).iter("text"):
            assert text.get("x") is None or 0 <= float(text.get("x")) <= WIDTH


def test_there_is_no_curve_without_two_points_or_accuracies() -> None:
    unknown = method([0.5, 0.6], [10, 20])
    for point in unknown["curve"]:
        point |= {"top1": None, "top2": None}
    for methods in ({}, {"vote": VOTE}, {"m": method([0.5], [10])}, {"m": unknown}, {"m": {"curve": []}}):
        assert accuracy_charts(methods) == ([], "")


def ranked(p: list[float], score: list[float], right: int | None) -> tuple[CandidateScores, Ranking]:
    candidates = tuple(Candidate(np.full((1, 2), i % 10, np.int8)) for i in range(len(p)))
    correct = None if right is None else [i == right for i in range(len(p))]
    evidence = CandidateScores(PairKey("t", "test", 0), candidates, correct)
    nothing = np.full(len(p), np.nan)
    return evidence, Ranking(np.argsort(score)[::-1], np.array(score), np.array(p), nothing)


def charts(*both: tuple[CandidateScores, Ranking]) -> list[Chart]:
    found = calibration_charts([e for e, _ in both], [r for _, r in both], "log-odds")
    return [chart for chart, _ in found]


def test_the_reliability_diagram_counts_what_came_true_by_tenths_of_p() -> None:
    one = ranked([0.95, 0.15, 0.05], [3.0, 1.0, 0.0], 0)
    other = ranked([0.85, 0.16, 1.0], [2.0, 1.0, 5.0], 1)
    reliability, _ = charts(one, other)
    assert [row[:3] for row in reliability.rows] == [
        ["0.0 to 0.1", "1", "0.050"],
        ["0.1 to 0.2", "2", "0.155"],
        ["0.8 to 0.9", "1", "0.850"],
        ["0.9 to 1.0", "2", "0.975"],
    ]
    assert [row[3].split()[0] for row in reliability.rows] == ["0.0%", "50.0%", "0.0%", "50.0%"]
    assert len(places(reliability)) == 4


def test_histograms_count_every_candidate_that_has_a_score() -> None:
    both = [ranked([0.5, 0.5, float("nan")], [2.0 + n, -1000.0 * n, float("nan")], 0) for n in range(50)]
    _, histogram = charts(*both)
    counts = [[int(text) for text in row[1:]] for row in histogram.rows]
    assert np.sum(counts, 0).tolist() == [50, 50] and "50 right and 50 wrong" in histogram.note
    assert "score (log-odds)" in histogram.svg


def test_unknown_outputs_have_no_calibration_and_one_kind_of_candidate_no_histogram() -> None:
    assert charts(ranked([0.5, 0.5], [1.0, 2.0], None)) == []
    assert [chart.title for chart in charts(ranked([0.5], [1.0], 0))] == ["Reliability: does p come true?"]
    alike = charts(ranked([0.5, 0.5], [1.0, 1.0], 0))
    assert len(alike) == 2 and "nan" not in alike[1].svg


def test_an_interval_of_a_share_lies_within_0_and_1_and_around_it() -> None:
    for n in (1, 3, 50):
        for hits in range(n + 1):
            low, high = wilson_interval(hits, n)
            assert 0 <= low <= hits / n <= high <= 1 and low < high
    assert wilson_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-3)


def test_ticks_are_round_and_within_their_axis() -> None:
    assert round_steps(0, 100) == [0, 20, 40, 60, 80, 100]
    assert round_steps(-11.7, 3.2) == [-10, -5, 0]
    for low, high in ((0, 1e9), (-0.013, 0.02), (5, 5)):
        ticks = Axis("x", low, high).marked
        assert len(ticks) <= 8 and all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
