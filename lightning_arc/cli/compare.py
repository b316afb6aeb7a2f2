"""Comparing recorded rankings over the same test inputs: python cli.py compare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_arc.arc import Episode, PairKey, Task, add_right_outputs, leave_one_out, read_candidates, read_tasks
from lightning_arc.arc.io.files import whole_file, write_json
from lightning_arc.arc.io.outputs import check_file
from lightning_arc.data.queries import held_out
from lightning_arc.errors import DataError
from lightning_arc.ranking.coverage import is_judged
from lightning_arc.ranking.metrics import asked_views, file_order, score_rankings
from lightning_arc.ranking.rankers import RANKERS, MajorityVote, Ranker, Ranking
from lightning_arc.ranking.recorded import read_evidence
from lightning_arc.ranking.scores import CandidateScores, counted, gather
from lightning_arc.reporting.chart_files import chart_svg
from lightning_arc.reporting.comparison import Way, write_comparison
from lightning_arc.reporting.curve import accuracy_charts
from lightning_arc.reporting.tables import TITLES, figure_rows, markdown, print_table

FILE_ORDER = "file order"
"""Name of the order of the candidates' file."""


@dataclass(frozen=True)
class Row:
    """One way to rank all test inputs, and how well it does.

    Args:
        run: the run whose evidence it uses, ``None`` if it uses none.
        ranker: name of its ranker.
        views: number of first views that it uses, ``None`` if it uses none.
        entry: its figures, as `score_rankings` returns them.
        rankings: one per test input.
    """

    run: str | None
    ranker: str
    views: int | None
    entry: Mapping[str, Any]
    rankings: Sequence[Ranking] = field(repr=False)

    @property
    def way(self) -> Way:
        """Its entry in the report of the comparison."""
        views = [] if self.views is None else [f"{self.views} view{'' if self.views == 1 else 's'}"]
        name = ", ".join([*([] if self.run is None else [self.run]), self.ranker, *views])
        return Way(name, self.run, self.entry["top2"], self.rankings)

    def cells(self) -> list[list[str]]:
        """Return its rows of the table; ``~`` stands before the views answered in the mean, if they are fewer."""
        rows = figure_rows(self.ranker, self.entry)
        if self.views is not None:
            mean = self.entry["views"]
            rows[0][1 + TITLES.index("views")] = f"{self.views}" + ("" if mean == self.views else f"\n~{mean:.3g}")
        return [[self.run or "-", *row] for row in rows]


def compare(
    tasks: str,
    candidates: list[str],
    runs: dict[str, str],
    with_right_output: bool = False,
    held_out_fraction: float = 0.0,
    views: list[int] | None = None,
    rankers: dict[str, Ranker] | None = None,
    markdown: str | None = None,
    json: str | None = None,
    report: str | None = None,
    figure: str | None = None,
) -> list[Row]:
    """Rank the same test inputs by each run's records, with each ranker and number of views; print a table.

    Test inputs are those of the tasks that the candidate files name, whether a run answered them or not, and the
    demonstration pairs that a run left out and asked about.

    Args:
        tasks: tasks in any form that `read_tasks` takes.
        candidates: the files that were ranked, in the order in which they were given then.
        runs: by a name for the table, the folder in which a ranking left its ``evidence-*.jsonl``, or such a file.
        with_right_output: whether they were ranked with ``data.with_right_output``; votes are then meaningless. Test
            inputs are those of the tasks that the runs are about.
        held_out_fraction: the ``data.held_out_fraction`` that they were ranked with; other tasks are left out.
        views: numbers of first views to rank by, each in its own row; all views if not given.
        rankers: by a name for the table, further rankers beside voting, the verifier, the likelihood and the
            mismatches. A ranker has no row for a run without requests of its kind.
        markdown: a file that the same table is written to as Markdown.
        json: a file that all figures are written to.
        report: an HTML file that shows which test inputs one row of the table wins and another loses.
        figure: an SVG file of accuracy against tokens, for rankers with several numbers of views.

    Returns:
        The rows of the table: first the ways that use no evidence, then each run's.

    Raises:
        DataError: names the invalid input.
    """
    for option, path in (("markdown", markdown), ("json", json), ("report", report), ("figure", figure)):
        if path is not None:
            check_file(path, option)
    if not runs:
        raise DataError("runs: nothing to compare, expected a folder by name")
    for n in views or ():
        if n < 1:
            raise DataError(f"views: {n}, expected at least 1")
    known = read_tasks(tasks)
    if held_out_fraction:
        known = held_out(known, held_out_fraction)
    queries, by_run, n_tasks = _gathered(known, candidates, runs, with_right_output)
    rows = compare_evidence(by_run, RANKERS | (rankers or {}), views)
    about = _about(by_run, n_tasks)
    names, cells = ("run", "ranker", *TITLES), [cells for row in rows for cells in row.cells()]
    drawn = "" if figure is None else _figure(rows)  # which may fail, before anything is written
    if markdown is not None:
        _write_markdown(Path(markdown), about, names, cells)
    if json is not None:
        found = [{"run": r.run, "ranker": r.ranker, "first_views": r.views, **r.entry} for r in rows]
        write_json(json, {"about": about, "rows": found})
    if report is not None:
        evidence, ways = next(iter(by_run.values())), [row.way for row in rows]
        write_comparison(Path(report), about, names, cells, queries, evidence, ways)
    if figure is not None:
        with whole_file(Path(figure)) as temporary:
            temporary.write_text(drawn)
    print_table(about[0], names, cells, "; ".join(about[1:]))
    return rows


def compare_evidence(
    by_run: Mapping[str, Sequence[CandidateScores]], rankers: Mapping[str, Ranker], views: Sequence[int] | None = None
) -> list[Row]:
    """Return a row for each run, ranker and number of views, behind the rows that use no evidence.

    Args:
        by_run: each run's evidence by the run's name, one per test input; all runs have the same test inputs.
        rankers: rankers by their names in the table.
        views: numbers of first views; those beyond the number that was asked give no further row.
    """
    bare = [e.first_views(0) for e in next(iter(by_run.values()))]
    votes = [MajorityVote().rank(e) for e in bare]

    def row(
        run: str | None, name: str, n: int | None, evidence: Sequence[CandidateScores], ranked: list[Ranking]
    ) -> Row:
        against = {"file": [file_order(e) for e in evidence]} | ({} if name == "vote" else {"vote": votes})
        return Row(run, name, n, score_rankings(evidence, ranked, rankers.get(name), against), ranked)

    rows = [row(None, FILE_ORDER, None, bare, [file_order(e) for e in bare])]
    rows += [row(None, name, None, bare, [r.rank(e) for e in bare]) for name, r in rankers.items() if not r.kinds]
    for run, evidence in by_run.items():
        for name, ranker in rankers.items():
            if ranker in RANKERS.values() and not any(is_judged(e, ranker) for e in evidence):
                continue  # a simple ranker has a row only where a model scored what it needs
            most = asked_views(evidence, ranker.kinds)
            for n in sorted({min(n, most) for n in views or (most,)} - {0}):
                first = [e.first_views(n) for e in evidence]
                rows.append(row(run, name, n, first, [ranker.rank(e) for e in first]))
    return rows


def _gathered(
    known: Mapping[str, Task], candidates: list[str], runs: Mapping[str, str], with_right_output: bool
) -> tuple[dict[PairKey, Episode], dict[str, list[CandidateScores]], int]:
    """Return all compared pairs, each run's evidence about them, and the number of their tasks."""
    pool = read_candidates(candidates, known)
    recorded = {name: read_evidence([path]) for name, path in runs.items()}
    judged = {record.key for records in recorded.values() for record in records}
    named = {key.task_id for key in (judged if with_right_output else pool)}
    used = {task_id: task for task_id, task in known.items() if task_id in named}
    queries = {
        e.key: e for task in used.values() for e in leave_one_out(task) if e.key.split == "test" or e.key in judged
    }
    if with_right_output:
        add_right_outputs(pool, queries.values())
    by_run = {}
    for name, path in runs.items():
        by_run[name] = gather(queries, pool, recorded[name])
        if not any(e.records for e in by_run[name]):
            raise DataError(f"{path}: what it holds is about none of these candidates (runs.{name})")
    return queries, by_run, len(used)


def _about(by_run: Mapping[str, Sequence[CandidateScores]], n_tasks: int) -> list[str]:
    """Return sentences on the compared test inputs, and on how many of them each run has not answered."""
    evidence = next(iter(by_run.values()))
    solvable = sum(e.solvable for e in evidence)
    known = any(e.correct is not None for e in evidence)
    among = f"the right output is among the candidates of {solvable}" if known else "outputs unknown"
    about = [f"{counted([e.key for e in evidence])} of {n_tasks} tasks, {among}"]
    for name, evidence_of_run in by_run.items():
        with_candidates = [e for e in evidence_of_run if e.candidates]
        unanswered = [e for e in with_candidates if not e.views.any()]
        if unanswered:
            long = sum(bool(e.records) for e in unanswered)
            why = [f"{long} too long"] * bool(long) + [f"{len(unanswered) - long} not asked"] * (long < len(unanswered))
            counts = f"{len(unanswered)} of {len(with_candidates)} with candidates ({', '.join(why)})"
            about.append(f"{name}: no answer about {counts}, ranked by votes")
        part = sum(bool(e.views.any()) and not all(record.complete for record in e.records) for e in with_candidates)
        if part:
            about.append(f"{name}: {part} answered in part, other views too long")
    return about


def _write_markdown(path: Path, about: Sequence[str], names: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(f"{'; '.join(about)}; 95% bootstrap intervals over tasks.\n\n{markdown(names, cells)}")


def _figure(rows: Sequence[Row]) -> str:
    """Return an SVG of the accuracy of each run's rankers by the tokens of their first views."""
    methods: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.views is None:
            methods |= {row.ranker: dict(row.entry)}
        else:
            of_run = methods.setdefault(f"{row.run}, {row.ranker}", {"curve": []})
            tokens = sum(row.entry[name] for name in ("prefix_tokens", "branch_tokens", "test_time_tokens"))
            of_run["curve"].append({**row.entry, "views": row.views, "tokens": tokens})
    charts, names = accuracy_charts(methods)
    if not charts:
        raise DataError("figure: expected known outputs and a ranker with two numbers of views")
    return chart_svg([(chart, names if not i else "") for i, chart in enumerate(charts)])
