"""The files of a ranking: the submission, every candidate with its scores, the accuracies, and a report to look at."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_arc.arc import Episode, Grid, PairKey, Task
from lightning_arc.arc.io.files import dump_line, whole_file, write_json
from lightning_arc.arc.io.submission import count_placeholders, write_submission
from lightning_arc.ranking.coverage import count_coverage, coverage, explain, explain_placeholders
from lightning_arc.ranking.divergence import diverged_tasks, divergence_sentence
from lightning_arc.ranking.means import paired_means
from lightning_arc.ranking.metrics import asked_views, score_methods
from lightning_arc.ranking.rankers import RANKERS, Ensemble, Ranker, Ranking
from lightning_arc.ranking.scores import CandidateScores, counted
from lightning_arc.ranking.stopping import StoppingConfig
from lightning_arc.reporting.origin import Origin
from lightning_arc.reporting.report import write_report
from lightning_arc.reporting.tables import TITLES, figure_rows, print_table

LEGEND = (
    "* what submission.json follows. Below each figure stands its 95% interval over tasks; differences from voting are "
    "paired, test input by test input."
)
"""Explanation of the figures in the printed table."""


def all_views(n: int) -> StoppingConfig:
    """Return stopping settings that ask about every candidate under ``n`` views."""
    return StoppingConfig(min_views=n, max_views=n, confidence=1.0)


def write_ranking(
    folder: Path,
    tasks: Mapping[str, Task],
    queries: Mapping[PairKey, Episode],
    evidence: Sequence[CandidateScores],
    ranker: Ranker,
    stopping: StoppingConfig | None = None,
    passed_over: Mapping[str, int] | None = None,
    origin: Origin | None = None,
) -> None:
    """Rank by the chosen method and the simple ones, write the four files, and print the table of methods.

    Args:
        folder: where they go.
        tasks: all tasks of the submission.
        queries: the episode of each query.
        evidence: one per query.
        ranker: the method that the submission follows, beside the `RANKERS`.
        stopping: when requests end; ``None`` means that every query was due as many views as any one was asked under.
        passed_over: number of test inputs of each skipped task, by its id.
        origin: facts about the run, for the report.
    """
    if isinstance(ranker, Ensemble):  # all figures are then of its weighted means
        evidence = [e.weighted(ranker.weights) for e in evidence]
    stopping = stopping or all_views(max(asked_views(evidence, ranker.kinds), 1))
    covered = [coverage(e, ranker, stopping) for e in evidence]
    rankers = RANKERS | {ranker.name: ranker}
    metrics = score_methods(evidence, rankers, ranker.name)
    metrics["not_judged"] = count_coverage(covered, evidence) if ranker.kinds else None
    diverged = diverged_tasks(record for e in evidence for record in e.records)
    metrics["test_time"] = {"diverged": len(diverged), "diverged_tasks": diverged}
    by_method = {name: [rankers[name].rank(e) for e in evidence] for name in metrics["methods"]}
    rankings = by_method[ranker.name]
    lines = [ranking_line(e, r) for e, r in zip(evidence, rankings, strict=True)]
    submitted = answers(evidence, rankings)
    metrics["submission"] = count_placeholders(submitted, tasks, passed_over)
    write_submission(submitted, tasks, folder / "submission.json", passed_over)
    with whole_file(folder / "ranking.jsonl") as path:
        path.write_text("".join(dump_line(line) for line in lines), encoding="utf-8")
    write_json(folder / "metrics.json", metrics)
    write_report(folder / "report.html", queries, evidence, by_method, metrics, covered, ranker.unit, origin)
    print_metrics(metrics, counted([e.key for e in evidence]), folder)
    if diverged:
        print(divergence_sentence(diverged))


def answers(evidence: Sequence[CandidateScores], rankings: Sequence[Ranking]) -> dict[str, list[list[Grid]]]:
    """Return by task id, for each of its test inputs, the candidates' grids in rank order."""
    grids: dict[str, list[list[Grid]]] = {}
    for e, ranking in zip(evidence, rankings, strict=True):
        if e.key.split == "test":
            grids.setdefault(e.key.task_id, []).append([e.candidates[i].grid for i in ranking.order])
    return grids


def ranking_line(evidence: CandidateScores, ranking: Ranking) -> dict[str, Any]:
    """Return a query's line of ``ranking.jsonl``: its candidates in rank order; ``split`` marks demonstration pairs."""
    likelihood, views = paired_means(evidence.log_likelihood), evidence.views
    candidates = []
    for rank, i in enumerate(ranking.order.tolist(), 1):
        candidates.append(
            {
                "rank": rank,
                "grid": evidence.candidates[i].grid.tolist(),
                "votes": evidence.candidates[i].votes,
                "score": _number(ranking.score[i]),
                "p_correct": _number(ranking.p_correct[i]),
                "stderr": _number(ranking.stderr[i]),
                "views": int(views[i]),
                "log_likelihood": _number(likelihood[i]),
                "correct": None if evidence.correct is None else evidence.correct[i],
            }
        )
    split = {} if evidence.key.split == "test" else {"split": evidence.key.split}
    return {"task_id": evidence.key.task_id, **split, "test_index": evidence.key.index, "candidates": candidates}


def print_metrics(metrics: Mapping[str, Any], test_inputs: str, folder: Path) -> None:
    """Print a table of the methods and of the order of the candidates' file; the chosen method has a star.

    Lines below it explain the figures, and say which test inputs were not judged, how many attempts of the submission
    are placeholders, and the full paths of the written files.
    """
    solvable = metrics["n_solvable"]
    known = "outputs unknown" if solvable is None else f"the right output is among the candidates of {solvable}"
    title = f"{test_inputs}, {known}"
    entries = {name + (" *" if name == metrics["chosen"] else ""): m for name, m in metrics["methods"].items()}
    if solvable is not None:
        entries = {"file order": metrics["file_order"]} | entries
    rows = [row for name, entry in entries.items() for row in figure_rows(name, entry)]
    caption = [] if solvable is None else [LEGEND]
    caption += [*explain(metrics["not_judged"]), *explain_placeholders(metrics["submission"])]
    print_table(title, ("method", *TITLES), rows, "\n".join(caption))
    for name, file in (("submission", "submission.json"), ("report", "report.html"), ("ranking", "ranking.jsonl")):
        print(f"{name + ':':<12}{(folder / file).absolute()}")


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
