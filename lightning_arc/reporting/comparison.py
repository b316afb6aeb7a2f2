"""The report of a comparison: which test inputs one way of ranking wins and another loses, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_arc.arc import Episode, PairKey
from lightning_arc.ranking.metrics import ATTEMPTS
from lightning_arc.ranking.rankers import Ranking
from lightning_arc.ranking.scores import CandidateScores
from lightning_arc.reporting.origin import typed_command
from lightning_arc.reporting.page import digits, write_page
from lightning_arc.reporting.report import MEANING
from lightning_arc.reporting.report_data import query_entry, right_rank
from lightning_arc.reporting.tables import filled_columns

OUTCOMES = {
    "first": "A wins: the right output is among its first two, and not among those of B",
    "second": "B wins: it is among the first two of B, and not among those of A",
    "both": "both right",
    "neither": "neither right",
    "absent": "right output absent, or unknown",
}
"""Possible outcomes of a test input that two ways ranked."""


@dataclass(frozen=True)
class Way:
    """One way to rank all test inputs.

    Args:
        name: its name.
        run: the run whose evidence it uses, ``None`` if it uses none.
        top2: its top-2 accuracy, ``None`` where outputs are unknown.
        rankings: one per test input.
    """

    name: str
    run: str | None
    top2: float | None
    rankings: Sequence[Ranking]


def write_comparison(
    path: Path,
    about: Sequence[str],
    names: Sequence[str],
    cells: Sequence[Sequence[str]],
    queries: Mapping[PairKey, Episode],
    evidence: Sequence[CandidateScores],
    ways: Sequence[Way],
) -> None:
    """Write the report of a comparison.

    Args:
        path: the HTML file.
        about: sentences about the comparison.
        names: column titles of the table of all ways.
        cells: cells of that table.
        queries: the episode of each query.
        evidence: one per query; only its candidates and their correctness are used.
        ways: at least two.
    """
    first, second = opponents(ways)
    ranks = [[right_rank(e, way.rankings[n]) for way in ways] for n, e in enumerate(evidence)]
    tests = [
        {
            **query_entry(queries[e.key]),
            "grids": [digits(c.grid) for c in e.candidates],
            "votes": [c.votes for c in e.candidates],
            "right": e.right_place if e.solvable else -1,
            "orders": [way.rankings[n].order.tolist() for way in ways],
            "ranks": ranks[n],
        }
        for n, e in enumerate(evidence)
    ]
    found: dict[str, list[str]] = {outcome: [] for outcome in OUTCOMES}
    for e, each in zip(evidence, ranks, strict=True):
        found[outcome(each[first], each[second])].append(f"{e.key.task_id} [{e.key.index}]")
    shown = filled_columns(cells)
    data = {"ways": [way.name for way in ways], "attempts": ATTEMPTS, "tests": tests}
    table = {
        "titles": [names[i] for i in shown],
        "meanings": {names[i]: MEANING[names[i]] for i in shown if names[i] in MEANING},
        "words": 2,
        "rows": [{"kind": "", "cells": [row[i].split("\n") for i in shown]} for row in cells],
    }
    write_page(
        path,
        "comparison.html.jinja",
        data,
        about=about,
        table=table,
        ways=[way.name for way in ways],
        first=first,
        second=second,
        outcomes=OUTCOMES,
        found=found,
        command=typed_command(),
    )


def opponents(ways: Sequence[Way]) -> tuple[int, int]:
    """Return the places of the two ways that are compared at first.

    These are the best ones, by top-2 accuracy, of the first two runs; with a single run, its best one and the best one
    without a run. Where no run answered anything, they are the first two.
    """
    runs = [run for run in dict.fromkeys(way.run for way in ways) if run is not None]
    if not runs:
        return 0, 1
    chosen = [*runs, None][:2]
    places = [[n for n, way in enumerate(ways) if way.run == run] for run in chosen]
    first, second = (max(of_run, key=lambda n: ways[n].top2 or 0.0) for of_run in places)
    return first, second


def outcome(first: int | None, second: int | None) -> str:
    """Return the outcome of a test input, one of `OUTCOMES`, from the right output's ranks in two ways."""
    if first is None or second is None:
        return "absent"
    wins = first <= ATTEMPTS, second <= ATTEMPTS
    return {(True, True): "both", (True, False): "first", (False, True): "second", (False, False): "neither"}[wins]
