"""Comparing: every ranker and number of views over the same test inputs, and the table that is written."""

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from lightning_arc.arc import PairKey, read_tasks
from lightning_arc.cli.compare import Row, compare
from lightning_arc.data.queries import held_out
from lightning_arc.errors import DataError
from lightning_arc.ranking.metrics import bootstrap_interval
from lightning_arc.ranking.rankers import ComparativeRanker, LogLinearRanker
from lightning_arc.ranking.records import Choice, ViewScores, encode_scores
from lightning_arc.reporting.comparison import Way, opponents

NAN = [float("nan")] * 3
TASKS = [f"task{i}" for i in range(12)]
"""The last two have candidates about which no run has an answer; one was too long to be asked."""


def write_run(folder: Path, records: list[ViewScores]) -> str:
    folder.mkdir()
    lines = [json.dumps({"signature": "s"}), *(json.dumps(encode_scores(record)) for record in records)]
    (folder / "evidence-0.jsonl").write_text("\n".join(lines))
    return str(folder)


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """Tasks whose right output is second in the file and has the fewest votes, and runs that scored them.

    The run ``good`` is wrong under its first view and right by the mean of both; ``choosing`` has selections alone, of
    one view, which are right.
    """
    pair = {"input": [[0]], "output": [[0]]}
    tasks = {
        task: {"train": [pair], "test": [{"input": [[1]], "output": [[2, 2]]}]} for task in [*TASKS, "no candidates"]
    }
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    grids = [[[3]], [[3]], [[2, 2]], [[4]], [[4]], [[4]]]
    (tmp_path / "candidates.json").write_text(json.dumps({task: [grids] for task in TASKS}))
    good, choosing = [], []
    for task in TASKS[:10]:
        key = PairKey(task, "test", 0)
        good.append(ViewScores(key, 0, [1.0, -1.0, 2.0], [-2.0, -3.0, -1.0], 100, 20, 0.5))
        good.append(ViewScores(key, 1, [0.0, 5.0, -5.0], [-3.0, -1.0, -4.0], 100, 20, 0.5))
        choices = (Choice((0, 1, 2), (-3.0, -0.1, -4.0)),)
        choosing.append(ViewScores(key, 0, NAN, NAN, 30, 5, 0.25, selections=choices))
    good.append(ViewScores(PairKey(TASKS[10], "test", 0), 0, NAN, NAN))
    return {
        "tasks": str(tmp_path / "tasks.json"),
        "candidates": [str(tmp_path / "candidates.json")],
        "runs": {
            "good": write_run(tmp_path / "good", good),
            "choosing": write_run(tmp_path / "choosing", choosing),
        },
    }


def named(rows: list[Row]) -> dict[tuple[str | None, str, int | None], dict[str, Any]]:
    return {(row.run, row.ranker, row.views): dict(row.entry) for row in rows}


def test_there_is_a_row_for_each_run_ranker_and_number_of_views_it_has(given: dict[str, Any]) -> None:
    rankers = {"with votes": LogLinearRanker({"verifier": 1.0, "votes": 1.0}), "select": ComparativeRanker()}
    rows = [(row.run, row.ranker, row.views) for row in compare(**given, views=[1, 2, 32], rankers=rankers)]
    assert rows == [
        (None, "file order", None),
        (None, "vote", None),
        *(("good", ranker, n) for ranker in ("verifier", "likelihood", "with votes") for n in (1, 2)),
        ("choosing", "select", 1),
    ]


def test_every_row_is_about_the_same_test_inputs_and_what_is_not_recorded_is_ranked_by_votes(
    given: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = named(compare(**given, views=[1, 2], rankers={"select": ComparativeRanker()}))
    file, vote = rows[None, "file order", None], rows[None, "vote", None]
    assert (file["top1"], file["top2"], file["mrr"]) == (0, 1, 0.5)
    assert (vote["top1"], vote["top2"]) == (0, 0)  # 3, 2 and 1 votes
    assert [rows["good", "verifier", n]["top1"] for n in (1, 2)] == [0, pytest.approx(10 / 12)]
    assert rows["choosing", "select", 1]["top2"] == pytest.approx(10 / 12)
    assert rows["good", "verifier", 2]["top2_minus_vote"] == pytest.approx(10 / 12)
    right = np.array([1.0] * 10 + [0.0] * 2)
    assert rows["good", "verifier", 2]["top2_minus_vote_ci"] == pytest.approx(bootstrap_interval(right, TASKS))
    assert rows["good", "verifier", 2]["top2_minus_file"] == pytest.approx(-2 / 12)
    out = capsys.readouterr().out
    assert "12 test inputs of 12 tasks, the right output is among the candidates of 12" in out
    assert "good: no answer about 2 of 12 with candidates (1 too long, 1 not asked), ranked by votes" in " ".join(
        out.split()
    )


def test_fewer_views_cost_less_and_each_ranker_what_its_own_questions_cost(given: dict[str, Any]) -> None:
    rows = named(compare(**given, views=[1, 2], rankers={"select": ComparativeRanker()}))
    tokens = {name: row["prefix_tokens"] + row["branch_tokens"] for name, row in rows.items()}
    assert (tokens["good", "verifier", 1], tokens["good", "verifier", 2]) == (1200, 2400)
    assert tokens["choosing", "select", 1] == 350 and tokens[None, "vote", None] == 0
    assert rows["good", "likelihood", 2]["seconds"] == 10 and rows["choosing", "select", 1]["seconds"] == 2.5


def test_without_numbers_of_views_all_that_a_run_has_are_taken(given: dict[str, Any]) -> None:
    assert [row.views for row in compare(**given) if row.run is not None] == [2, 2]


def test_tasks_that_were_not_held_out_are_left_out(given: dict[str, Any]) -> None:
    first, *_ = compare(**given, held_out_fraction=0.5)
    left = {task for task in held_out(read_tasks(given["tasks"]), 0.5) if task in TASKS}
    assert 0 < len(left) < len(TASKS) and len(first.rankings) == len(left)


def test_the_report_opposes_the_best_rows_of_two_runs(given: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "out" / "report.html"
    compare(**given, rankers={"select": ComparativeRanker()}, report=str(path))
    page = path.read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    ways = ["file order", "vote", "good, verifier, 2 views", "good, likelihood, 2 views", "choosing, select, 1 view"]
    assert data["ways"] == ways and len(data["tests"]) == 12
    chosen = [unescape(name) for name in re.findall(r" selected>(.*?)</option>", page)]
    assert chosen == ["good, verifier, 2 views", "choosing, select, 1 view"]
    first, last = data["tests"][0], data["tests"][-1]
    assert first["grids"] == ["3", "22", "4"] and first["right"] == 1 and first["votes"] == [2, 1, 3]
    assert first["ranks"] == [2, 3, 1, 1, 1] and last["ranks"] == [2, 3, 3, 3, 3]
    assert first["orders"][1] == [2, 0, 1]
    counts = re.findall(r"<dt>(\d+)</dt>", page[page.index('id="tally"') :])
    assert counts == ["0", "0", "10", "2", "0"]  # won by A, by B, by both, by none, absent


def test_the_figure_has_a_line_for_each_ranker_of_a_run_and_a_level_for_voting(
    given: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "figure.svg"
    runs = {"good": given["runs"]["good"]}
    compare(given["tasks"], given["candidates"], runs, views=[1, 2], figure=str(path))
    root = ElementTree.parse(path).getroot()
    titles = [node.text for node in root.iter("{http://www.w3.org/2000/svg}title")]
    assert [t.split(":")[0] for t in titles if t and t.startswith("good, verifier")] == [
        "good, verifier, 1 view, 1.20k tokens",
        "good, verifier, 2 views, 2.40k tokens",
    ] * 2
    with pytest.raises(DataError, match="figure: expected known outputs and a ranker with two numbers of views"):
        compare(
            given["tasks"], given["candidates"], runs, views=[1],
            figure=str(tmp_path / "none.svg"), markdown=str(tmp_path / "none.md"),
        )  # fmt: skip
    assert not list(tmp_path.glob("none.*"))


def test_of_a_single_run_the_best_row_is_compared_with_what_goes_by_no_evidence() -> None:
    ways = [Way("file", None, 0.3, []), Way("vote", None, 0.4, []), Way("a", "run", 0.5, []), Way("b", "run", 0.6, [])]
    assert opponents(ways) == (3, 1)
    assert opponents([*ways, Way("c", "other", None, [])]) == (3, 4)
    assert opponents(ways[:2]) == (0, 1)


def test_what_a_person_got_wrong_is_named(given: dict[str, Any], tmp_path: Path) -> None:
    other = ViewScores(PairKey("another", "test", 0), 0, [1.0], [1.0])
    for changed, message in (
        ({"runs": {}}, "runs: nothing to compare"),
        ({"report": str(tmp_path)}, r"is a folder, .*\(report\)"),
        ({"views": [4, 0]}, "views: 0, expected at least 1"),
        ({"runs": {"x": str(tmp_path / "nowhere")}}, r"nowhere: no evidence-\*.jsonl"),
        ({"runs": {"x": write_run(tmp_path / "other", [other])}}, r"other: .* about none of these .*runs.x"),
    ):
        with pytest.raises(DataError, match=message):
            compare(**given | changed)


@pytest.mark.slow
def test_the_command_line_takes_a_config_with_rankers_and_writes_both_files(
    given: dict[str, Any], tmp_path: Path, cli: Callable[..., str]
) -> None:
    config = given | {
        "views": [2],
        "rankers": {
            "with votes": {"class_path": "LogLinearRanker", "init_args": {"weights": {"verifier": 1, "votes": 9}}}
        },
        "markdown": str(tmp_path / "out" / "table.md"),
        "json": str(tmp_path / "out" / "table.json"),
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    command = ("compare", f"--config={tmp_path / 'config.yaml'}")
    printed = cli(*command)
    assert "with votes" in printed and "choosing" not in printed.splitlines()[4]
    table = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert table[0].startswith("12 test inputs of 12 tasks") and table[2].startswith("| run | ranker | top-1 | top-2 |")
    assert [line.split(" | ")[:2] for line in table[4:]][-2:] == [
        ["| good", "with votes"],
        ["| good", "10 of 12 judged (10 solvable)"],
    ]
    assert len(table) == 4 + 2 + 2 * 3
    found = json.loads((tmp_path / "out" / "table.json").read_text())["rows"]
    assert [(row["ranker"], row["first_views"]) for row in found][-2:] == [("likelihood", 2), ("with votes", 2)]
    assert found[2]["top1"] == pytest.approx(10 / 12)
    assert cli(*command, "--runs={a: nowhere}", status=2) == "\nerror: nowhere: no evidence-*.jsonl (evidence)\n"


@pytest.mark.slow
@pytest.mark.parametrize(("config", "ranker"), [("rankers", "fitted without order"), ("views", "likelihood")])
def test_the_configs_of_the_repository_name_rankers_that_there_are(
    cli: Callable[..., str], given: dict[str, Any], tmp_path: Path, config: str, ranker: str
) -> None:
    printed = cli(
        *("compare", f"--config=configs/experiments/{config}.yaml", f"--tasks={given['tasks']}"),
        *(f"--candidates={json.dumps(given['candidates'])}", f"--runs={json.dumps(given['runs'])}", "--views=[1, 2]"),
        *("--markdown=null", "--json=null", f"--figure={tmp_path / 'figure.svg'}"),
    )
    assert ranker in " ".join(printed.split()) and (tmp_path / "figure.svg").is_file()
