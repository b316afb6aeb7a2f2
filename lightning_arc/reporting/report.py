"""The report of a ranking: one self-contained HTML page for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_arc.arc import Episode, PairKey
from lightning_arc.ranking.coverage import NOT_REACHED, Coverage, explain, explain_placeholders, too_long
from lightning_arc.ranking.divergence import divergence_sentence
from lightning_arc.ranking.metrics import ATTEMPTS
from lightning_arc.ranking.rankers import Ranking
from lightning_arc.ranking.scores import CandidateScores, counted
from lightning_arc.reporting.calibration_charts import calibration_charts
from lightning_arc.reporting.curve import accuracy_charts
from lightning_arc.reporting.origin import Origin
from lightning_arc.reporting.page import write_page
from lightning_arc.reporting.report_data import LEAST_P, test_inputs
from lightning_arc.reporting.tables import TITLES, figure_rows, filled_columns, share

MEANING = {
    "top-1": "share of solvable test inputs (whose right output is among the candidates) where it comes first; 95% "
    "bootstrap intervals over tasks",
    "top-2": "share of them where it is one of the first two, which a submission holds",
    "top-2 over voting": "paired difference of top-2 from ordering by votes",
    "top-2 over the file's order": "paired difference of top-2 from the order of the candidates' file",
    "MRR": "mean reciprocal rank of the right output",
    "AUROC": "share of a test input's wrong candidates that are below the right one, ties half: the area under the ROC "
    "curve within test inputs, in the mean",
    "ECE": "expected calibration error of p, in 15 bins; 0 is best",
    "score": "as ARC counts it: a point a task, shared by its test inputs, over all tasks",
    "expected (calibrated)": "the score that is expected: the sum of p over the candidates that are sent, of methods "
    "whose p was calibrated on training tasks",
    "views": "views of a test input that were answered, in the mean",
    "tokens": "tokens that went through the model; behind a plus sign those of test-time training",
    "seconds": "time that the model took",
}
"""The meaning of each column."""


def write_report(
    path: Path,
    queries: Mapping[PairKey, Episode],
    evidence: Sequence[CandidateScores],
    rankings: Mapping[str, Sequence[Ranking]],
    metrics: Mapping[str, Any],
    covered: Sequence[Coverage],
    unit: str = "",
    origin: Origin | None = None,
) -> None:
    """Write the report.

    Args:
        path: the HTML file.
        queries: the episode of each query.
        evidence: one per query.
        rankings: by method, one per query; including the method that ``metrics`` names as chosen.
        metrics: the content of ``metrics.json``.
        covered: how far each query was judged.
        unit: unit of the chosen method's scores.
        origin: the origin of the ranking, ``None`` where it is not known.
    """
    chosen = metrics["chosen"]
    notes = [_missing(one, metrics["not_judged"]) for one in covered]
    curves, curve_legend = accuracy_charts(metrics["methods"])
    data = {
        "methods": list(rankings),
        "chosen": chosen,
        "unit": unit,
        "attempts": ATTEMPTS,
        "least": LEAST_P,
        "tests": test_inputs(queries, evidence, rankings, chosen, notes),
    }
    write_page(
        path,
        "report.html.jinja",
        data,
        metrics=metrics,
        asked=counted([e.key for e in evidence]),
        unit=unit,
        origin=origin,
        table=method_table(metrics),
        warnings=_warnings(metrics),
        curves=curves,
        curve_legend=curve_legend,
        calibration=calibration_charts(evidence, rankings[chosen], unit),
    )


def method_table(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table of the methods, without the columns in which none has a figure.

    Returns:
        ``titles``; ``meanings`` of those that have one; ``words``, the number of first columns that hold words; and
        ``rows``, each with its ``kind`` and its ``cells``, which are lists of lines.
    """
    entries = dict(metrics["methods"])
    if metrics["n_solvable"] is not None:
        entries = {"order of the file": metrics["file_order"]} | entries
    titles = ("method", *TITLES, "top-2 over the file's order")
    rows = [
        [*row, share(m.get("top2_minus_file"), m.get("top2_minus_file_ci"), "+")]
        for name, entry in entries.items()
        for row, m in zip(figure_rows(name, entry), (entry, entry.get("judged", {})), strict=False)
    ]
    shown = filled_columns(rows)
    kinds = ["chosen" if row[0] == metrics["chosen"] else "" if row[0] in entries else "judged" for row in rows]
    return {
        "titles": [titles[i] for i in shown],
        "meanings": {titles[i]: MEANING[titles[i]] for i in shown if titles[i] in MEANING},
        "words": 1,
        "rows": [
            {"kind": kind, "cells": [row[i].split("\n") for i in shown]} for kind, row in zip(kinds, rows, strict=True)
        ],
    }


def _warnings(metrics: Mapping[str, Any]) -> list[str]:
    """Return sentences on missing verdicts, placeholders, and test-time training that diverged."""
    found = [*explain(metrics["not_judged"]), *explain_placeholders(metrics["submission"])]
    found.append(divergence_sentence(metrics.get("test_time", {}).get("diverged_tasks", [])))
    return [sentence for sentence in found if sentence]


def _missing(covered: Coverage, not_judged: Mapping[str, Any] | None) -> str:
    """Return the note on missing verdicts for a query's heading."""
    if not_judged is None or covered in ("judged", "not_asked"):
        return ""
    reason = too_long(not_judged["max_seq_len"]) if covered.endswith("too_long") else NOT_REACHED
    return f"{'judged in part, other views' if covered.startswith('partly') else 'not judged:'} {reason}"
