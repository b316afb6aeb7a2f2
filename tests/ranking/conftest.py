"""What the ranking tests draw: evidence about candidates, with ties, gaps and test inputs without any."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from lightning_arc.arc import Candidate, PairKey
from lightning_arc.ranking.records import ViewScores
from lightning_arc.ranking.scores import CandidateScores

# Few values, so that ties are common.
_SCORES = st.one_of(st.just(math.nan), st.integers(-3, 3).map(float))


def _scores_of(
    log_odds: Any,
    log_likelihood: Any = None,
    votes: Sequence[int] | None = None,
    correct: list[bool] | None = None,
    task_id: str = "t",
) -> CandidateScores:
    """Make the scores of a test input from tables with a row a view; ten tokens a candidate behind a hundred."""
    rows = np.array(log_odds, float)
    n = rows.shape[1] if rows.ndim == 2 else len(votes)
    others = np.full((len(rows), n), math.nan) if log_likelihood is None else np.array(log_likelihood, float)
    candidates = tuple(Candidate(np.full((1, 2), i, np.int8), 1 if votes is None else votes[i]) for i in range(n))
    key = PairKey(task_id, "test", 0)
    evidence = CandidateScores(key, candidates, correct)
    for view in range(len(rows)):
        evidence.take(ViewScores(key, view, rows[view].tolist(), others[view].tolist(), 100, 10 * n, 0.5))
    return evidence


@st.composite
def _evidences(draw: st.DrawFn, scores: st.SearchStrategy[float] = _SCORES, known: bool = True) -> CandidateScores:
    n, views = draw(st.integers(0, 6)), draw(st.integers(0, 3))
    rows = st.lists(st.lists(scores, min_size=n, max_size=n), min_size=views, max_size=views)
    votes = draw(st.lists(st.integers(1, 3), min_size=n, max_size=n))
    right = draw(st.integers(-1, n - 1))
    correct = [i == right for i in range(n)] if known else None
    log_odds, likelihood = (np.array(draw(rows), float).reshape(views, n) for _ in range(2))
    return _scores_of(log_odds, likelihood, votes, correct, draw(st.sampled_from("abc")))


@pytest.fixture(scope="session")
def evidences():
    """A function that makes a strategy of evidence: with given scores, outputs known or not."""
    return _evidences


@pytest.fixture(scope="session")
def scores_of():
    """A function that makes the scores of a test input from tables of log-odds and log-likelihoods, and votes."""
    return _scores_of
