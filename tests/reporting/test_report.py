"""What is written of a ranking: the figures in ``metrics.json``, the printed table, and the page with its curve."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_arc.arc import Candidate, Pair, PairKey, Task, as_grid, leave_one_out
from lightning_arc.inference.ranking_files import write_ranking
from lightning_arc.ranking.calibration import Temperature
from lightning_arc.ranking.rankers import ComparativeRanker, LogLinearRanker, MajorityVote, Ranker, Verifier
from lightning_arc.ranking.records import Choice, ScoringRequest, ViewScores, no_answer
from lightning_arc.ranking.scores import CandidateScores
from lightning_arc.reporting.curve import HEIGHT, TOP, curve_svg

GRIDS = [as_grid([[i, i]]) for i in range(3)]
TASKS = {f"t{i}": Task(f"t{i}", (Pair(GRIDS[0], GRIDS[1]),), (Pair(GRIDS[0], GRIDS[2]),)) for i in range(6)}


def asked(views: int, known: bool = True) -> list[CandidateScores]:
    """Test inputs whose right output has the fewest votes, and is judged best from the second view on."""
    made = []
    for task_id in TASKS:
        candidates = tuple(Candidate(grid, 3 - i) for i, grid in enumerate(GRIDS))
        e = CandidateScores(PairKey(task_id, "test", 0), candidates, [False, False, True] if known else None)
        for view in range(views):
            e.take(ViewScores(e.key, view, [3.0, 1.0, 2.0 * view], [-3.0, -2.0, -4.0], 100, 20, 0.5))
        made.append(e)
    return made


def written(
    folder: Path, evidence: list[CandidateScores], capsys: pytest.CaptureFixture[str], ranker: Ranker | None = None
) -> tuple[dict[str, Any], str, str]:
    queries = {episode.key: episode for task in TASKS.values() for episode in leave_one_out(task)}
    write_ranking(folder, TASKS, queries, evidence, ranker or Verifier())
    metrics = json.loads((folder / "metrics.json").read_text())
    return metrics, capsys.readouterr().out, (folder / "report.html").read_text()


def cells(page: str) -> list[list[str]]:
    """The rows of the page's table."""
    rows = re.findall(r"<tr.*?</tr>", page)
    return [[re.sub(r"<[^>]*>", " ", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]


def test_the_printed_table_and_the_page_tell_what_metrics_json_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics, out, page = written(tmp_path, asked(4), capsys, Verifier(Temperature(0.5)))
    verifier = metrics["methods"]["verifier"]
    assert [verifier[name] for name in ("top1", "top2", "score", "views")] == [0, 1, 6, 4]
    heads, *rows = cells(page)
    for title in ("MRR", "AUROC", "ECE", "score", "expected", "top-2 over voting", "top-2 over the file's order"):
        assert any(title in head for head in heads), title
    for title in ("MRR", "AUROC", "ECE", "score", "expected", "voting"):
        assert title in out, title
    assert [row[0].strip() for row in rows] == ["order of the file", "vote", "verifier", "likelihood"]
    (printed,) = (line for line in out.splitlines() if line.startswith("verifier *"))
    figures = [f"{verifier[name]:.3f}" for name in ("mrr", "auroc_within", "ece")]
    figures += [f"{verifier['score']:.1f}", f"{verifier['expected_score']:.1f}", "+100.0%"]
    for figure in figures:
        assert figure in printed and any(figure in cell for cell in rows[2]), figure
    assert any(line.startswith("file order") for line in out.splitlines())


def test_metrics_json_has_the_curve_of_what_asks_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics, _, _ = written(tmp_path, asked(3), capsys, LogLinearRanker())
    assert set(metrics["methods"]) == {"vote", "verifier", "likelihood", "combined"}
    assert "curve" not in metrics["methods"]["vote"]
    for name in ("verifier", "likelihood", "combined"):
        curve = metrics["methods"][name]["curve"]
        assert [point["views"] for point in curve] == [1, 2, 3]
        assert [point["tokens"] for point in curve] == [720, 1440, 2160]
        assert [point["seconds"] for point in curve] == [3, 6, 9]
        assert curve[-1]["top2"] == metrics["methods"][name]["top2"]


def test_unknown_outputs_leave_what_calibrated_probabilities_let_expect_and_no_curve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics, out, page = written(tmp_path, asked(4, known=False), capsys, Verifier(Temperature(0.5)))
    assert metrics["n_solvable"] is None and metrics["methods"]["verifier"]["score"] is None
    heads, *rows = cells(page)
    assert [head.strip() for head in heads] == ["method", "expected (calibrated)", "views", "tokens", "seconds"]
    assert [row[0].strip() for row in rows] == ["vote", "verifier", "likelihood"] and "file order" not in out
    assert f"{metrics['methods']['verifier']['expected_score']:.1f}" in rows[1][1]
    assert "<svg class" not in page and "MRR" not in out


def test_the_page_shows_a_curve_where_there_are_two_points_and_needs_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert '<svg class="curve"' not in written(tmp_path, asked(1), capsys)[2]
    page = written(tmp_path, asked(2), capsys)[2]
    assert page.count('<svg class="curve"') == 1

    class Names(HTMLParser):
        seen: set[str] = set()

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.seen |= {tag, *(name for name, _ in attrs)}

    Names().feed(page)
    assert not Names.seen & {"script", "link", "img", "src", "xlink:href"} and "url(" not in page
    for variable in set(re.findall(r"var\((--\w+)\)", page)):
        assert f"{variable}:" in page, variable


def drawn(methods: dict[str, Any]) -> ElementTree.Element:
    return ElementTree.fromstring(curve_svg(methods))


def method(shares: list[float], tokens: list[int]) -> dict[str, Any]:
    points = [
        {"views": 2**i, "top1": s, "top1_ci": [s, s], "top2": s, "top2_ci": [s, s], "tokens": t, "seconds": 1.0}
        for i, (s, t) in enumerate(zip(shares, tokens, strict=True))
    ]
    return {"curve": points}


VOTE = {"top1": 0.6, "top1_ci": [0.5, 0.7], "top2": 0.7, "top2_ci": [0.6, 0.8]}


def test_each_point_stands_where_its_accuracy_and_tokens_are() -> None:
    picture = drawn({"vote": VOTE, "a < b": method([0.2, 0.4, 0.9], [1000, 10_000, 100_000])})
    marks = [path for path in picture.iter("path") if path.get("transform") and path.find("title") is not None]
    titles = [mark.find("title").text for mark in marks]
    assert titles[0] == "a < b, 1 view, 1.00k tokens: 20.0% (20.0 to 20.0)" and len(titles) == 6
    places = [tuple(map(float, re.findall(r"[\d.]+", mark.get("transform")))) for mark in marks[:3]]
    (x1, y1), (x2, y2), (x3, y3) = places
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)  # tokens are logarithmic
    assert (y1 - y2) / (y2 - y3) == pytest.approx(0.2 / 0.5, abs=0.01)
    assert TOP < y3 < y1 < HEIGHT
    texts = [text.text for text in picture.iter("text")]
    for label in (
        "top-1 accuracy",
        "top-2 accuracy",
        "tokens, all test inputs together",
        "10k",
        "80%",
        "a < b",
        "vote",
    ):
        assert label in texts, label
    (level, _) = (
        path for path in picture.iter("path") if path.get("class") == "still" and path.find("title") is not None
    )
    assert y3 < float(level.get("d").split(",")[1].split("h")[0]) < y2


@pytest.mark.parametrize("shares", ([0.0, 0.0], [1.0, 1.0], [0.5, 0.5]))
@pytest.mark.parametrize("tokens", ([7, 8], [5000, 5000], [900, 1_000_000_000]))
def test_any_curve_stays_within_the_picture(shares: list[float], tokens: list[int]) -> None:
    picture = drawn({"m": method(shares, tokens)})
    width, height = map(float, picture.get("viewBox").split()[2:])
    for text in picture.iter("text"):
        assert 0 <= float(text.get("x")) <= width and 0 <= float(text.get("y")) <= height
    for path in picture.iter("path"):
        if path.get("transform"):
            x, y = map(float, re.findall(r"[-\d.]+", path.get("transform")))
            assert 0 < x < width and 0 < y < height and math.isfinite(x + y)


def test_there_is_no_picture_without_two_points_or_accuracies() -> None:
    unknown = method([0.5, 0.6], [10, 20])
    for point in unknown["curve"]:
        point |= {"top1": None, "top2": None}
    for methods in ({}, {"vote": VOTE}, {"m": method([0.5], [10])}, {"m": unknown}, {"m": {"curve": []}}):
        assert curve_svg(methods) == ""


def test_a_selection_has_its_own_line_and_judges_that_were_not_asked_have_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evidence = asked(0)
    nothing = np.full(3, np.nan).tolist()
    for e in evidence:
        for view in range(2):
            choices = (Choice((0, 1, 2), (-2.0, -1.0, -0.5)),)
            e.take(ViewScores(e.key, view, nothing, nothing, 50, 10, 0.1, selections=choices))
    metrics, out, page = written(tmp_path, evidence, capsys, ComparativeRanker())
    assert set(metrics["methods"]) == {"vote", "selection"} and metrics["not_asked"] == [
        "verifier",
        "likelihood",
        "mismatches",
    ]
    assert len(metrics["methods"]["selection"]["curve"]) == 2
    assert "verifier" not in out and [row[0].strip() for row in cells(page)[2:]] == ["vote", "selection"]
    assert "selection, 2 views, 720 tokens: 100.0%" in page and "verifier, " not in page
    (line,) = (line for line in out.splitlines() if line.startswith("selection *"))
    assert line.split()[-3:] == ["2", "720", "1.2"]


def test_what_was_not_judged_is_counted_with_its_reason_in_all_three_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged, long, unreached, partly_long, partly_reached, alone = asked(2)
    for e, kept in ((long, 0), (unreached, 0), (partly_long, 1), (partly_reached, 1)):
        e.__dict__ |= e.first_views(kept).__dict__
    long.take(no_answer(ScoringRequest(long.key, 0, (0, 1, 2)), 3, 99))
    long.take(no_answer(ScoringRequest(long.key, 1, (0, 1, 2)), 3, 99))
    partly_long.take(no_answer(ScoringRequest(partly_long.key, 1, (0, 1, 2)), 3, 99))
    alone = CandidateScores(alone.key, alone.candidates[:1], [False])
    for view in range(2):
        alone.take(ViewScores(alone.key, view, [1.0], [-1.0], 100, 20, 0.5))
    evidence = [judged, long, unreached, partly_long, partly_reached, alone]
    metrics, out, page = written(tmp_path, evidence, capsys)
    counts = {"too_long": 1, "not_reached": 1, "partly_too_long": 1, "partly_not_reached": 1, "max_seq_len": 99}
    assert metrics["not_judged"] == counts
    assert metrics["methods"]["verifier"]["judged"]["n_tests"] == 4
    assert metrics["submission"] == {"n_tests": 6, "no_candidate": 0, "one_candidate": 1}
    ended = "1 test input not reached (time, tokens or an interruption ended the run)."
    sentences = [
        f"Not judged by the model, so ordered without it: 1 test input too long for data.max_seq_len 99, {ended}",
        f"Judged in part, other views missing: 1 test input too long for data.max_seq_len 99, {ended}",
        "Placeholders in submission.json: 1 of 6 test inputs have a single candidate, [[0]] in the second attempt.",
    ]
    for sentence in sentences:
        assert sentence in " ".join(out.split()) and sentence in page, sentence
    heads = re.findall(r"<h2>(t\d) \[0\]</h2>(.*?)<details", page)
    notes = {name: re.sub(r"<[^>]*>", "", head).partition("; ")[2] for name, head in heads}
    assert notes["t1"] == "not judged: too long for data.max_seq_len 99" and not notes["t0"] and not notes["t5"]
    assert notes["t3"] == "judged in part, other views too long for data.max_seq_len 99"
    assert notes["t2"].startswith("not judged: not reached") and notes["t4"].startswith(
        "judged in part, other views not"
    )
    assert "4 of 6 judged" in out and "4 of 6 judged" in page


def test_where_all_was_judged_or_no_model_is_asked_nothing_is_said_to_be_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics, out, page = written(tmp_path, asked(2), capsys)
    missing = ("Not judged", "in part", "judged\n", "Placeholders")
    assert not any(metrics["not_judged"].values()) and not any(word in text for word in missing for text in (out, page))
    metrics, out, _ = written(tmp_path, asked(0), capsys, MajorityVote())
    assert metrics["not_judged"] is None and not any(word in out for word in (*missing, "verifier "))
    assert set(metrics["methods"]) == {"vote"}
