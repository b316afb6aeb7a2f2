"""Data for a report's script: test inputs and their candidates, as compact JSON."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lightning_arc.arc import Episode, PairKey
from lightning_arc.ranking.means import paired_means
from lightning_arc.ranking.metrics import ATTEMPTS
from lightning_arc.ranking.rankers import Ranking
from lightning_arc.ranking.scores import CandidateScores
from lightning_arc.reporting.page import digits

MOST_DIGITS = 6
"""Most decimals that are shown to tell neighbours apart."""

LEAST_P = 0.0001
"""Smaller probabilities are shown as being below it."""


def test_inputs(
    queries: Mapping[PairKey, Episode],
    evidence: Sequence[CandidateScores],
    rankings: Mapping[str, Sequence[Ranking]],
    chosen: str,
    notes: Sequence[str],
) -> list[dict[str, Any]]:
    """Return the script's data of each test input.

    Args:
        queries: the episode of each query.
        evidence: one per query.
        rankings: by method, voting among them, one per query.
        chosen: the method whose order is shown.
        notes: for each query, a note about missing verdicts.
    """
    entries = []
    for number, (e, note) in enumerate(zip(evidence, notes, strict=True)):
        ranking = rankings[chosen][number]
        entries.append(
            {
                **query_entry(queries[e.key]),
                "note": note,
                "status": status(e, ranking),
                "ranks": [right_rank(e, each[number]) for each in rankings.values()],
                "differs": submitted(ranking) != submitted(rankings["vote"][number]),
                "margin": _margin(ranking),
                **_candidates(e, ranking),
            }
        )
    return entries


def query_entry(query: Episode) -> dict[str, Any]:
    """Return the script's data of a query: its name, demonstrations, input, and output where it is known."""
    return {
        "task": query.key.task_id,
        "split": query.key.split,
        "index": query.key.index,
        "demos": [[digits(pair.input), digits(pair.known_output)] for pair in query.demonstrations],
        "input": digits(query.query),
        "output": None if query.output is None else digits(query.output),
    }


def status(evidence: CandidateScores, ranking: Ranking) -> str:
    """Return where the right output is ranked: ``right``, ``later``, ``absent``, or ``unknown``."""
    if evidence.correct is None:
        return "unknown"
    rank = right_rank(evidence, ranking)
    return "absent" if rank is None else "right" if rank <= ATTEMPTS else "later"


def right_rank(evidence: CandidateScores, ranking: Ranking) -> int | None:
    """Return the right output's rank, ``None`` where it is not among the candidates, or not known."""
    if not evidence.solvable:
        return None
    return 1 + ranking.order.tolist().index(evidence.right_place)


def submitted(ranking: Ranking) -> set[int]:
    """Return the places of the candidates that a submission holds."""
    return set(ranking.order[:ATTEMPTS].tolist())


def digits_apart(values: Iterable[float], least: int, most: int, others: Sequence[float] = ()) -> list[int]:
    """Return for each value the number of decimals with which it reads differently from its neighbours in a list.

    Args:
        values: the values in the order of the list; those that are not finite are no neighbours.
        least: fewest decimals.
        most: most decimals, even where more would be needed.
        others: further values from which each shown value must differ.
    """
    known = [round(value, 9) for value in values]
    counts = []
    for i, value in enumerate(known):
        beside = [other for other in (*known[max(i - 1, 0) : i], *known[i + 1 : i + 2], *others) if other != value]
        apart = (n for n in range(least, most) if all(f"{value:.{n}f}" != f"{other:.{n}f}" for other in beside))
        counts.append(next(apart, most) if math.isfinite(value) else least)
    return counts


def _candidates(evidence: CandidateScores, ranking: Ranking) -> dict[str, Any]:
    """Return the columns of the table of candidates, in rank order."""
    order, views = ranking.order.tolist(), evidence.views
    rank = right_rank(evidence, ranking)
    score, p = ranking.score[order], ranking.p_correct[order]
    whole = bool((score[np.isfinite(score)] % 1 == 0).all())  # such as votes
    score_digits = digits_apart(score, 0 if whole else 2, MOST_DIGITS)
    p_digits = digits_apart(np.where(p < LEAST_P, 0, p), 2, MOST_DIGITS, (0.0, 1.0))
    columns = {
        "score": (ranking.score, MOST_DIGITS),
        "stderr": (ranking.stderr, MOST_DIGITS),
        "p": (ranking.p_correct, MOST_DIGITS),
        "logOdds": (paired_means(evidence.log_odds), 3),
        "logLikelihood": (paired_means(evidence.log_likelihood), 3),
        "mismatches": (paired_means(evidence.mismatches), 2),
    }
    return {
        "scoreDigits": score_digits,
        "pDigits": p_digits,
        "right": -1 if rank is None else rank - 1,
        "grids": [digits(evidence.candidates[i].grid) for i in order],
        "votes": [evidence.candidates[i].votes for i in order],
        "views": [int(views[i]) for i in order],
        "places": [i + 1 for i in order],
        **{name: [_rounded(values[i], n) for i in order] for name, (values, n) in columns.items()},
    }


def _margin(ranking: Ranking) -> float | None:
    """Return by how much p of the first candidate is above that of the second."""
    if len(ranking.order) < 2:
        return None
    first, second = ranking.p_correct[ranking.order[:2]]
    return _rounded(first - second, 6)


def _rounded(value: float, count: int) -> float | None:
    return round(float(value), count) if math.isfinite(value) else None
