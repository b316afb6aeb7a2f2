"""What the ranking tests draw: evidence about candidates, with ties, gaps and test inputs without any."""

import math

import numpy as np
import pytest
from hypothesis import strategies as st

from lightning_arc.arc import Candidate, PairKey
from lightning_arc.ranking.evidence import Evidence

# Few values, so that ties are common.
_SCORES = st.one_of(st.just(math.nan), st.integers(-3, 3).map(float))


@st.composite
def _evidences(draw: st.DrawFn, scores: st.SearchStrategy[float] = _SCORES, known: bool = True) -> Evidence:
    n, views = draw(st.integers(0, 6)), draw(st.integers(0, 3))
    rows = st.lists(st.lists(scores, min_size=n, max_size=n), min_size=views, max_size=views)
    candidates = tuple(Candidate(np.full((1, 2), i, np.int8), draw(st.integers(1, 3))) for i in range(n))
    right = draw(st.integers(-1, n - 1))
    log_odds, likelihood = (np.array(draw(rows), float).reshape(views, n) for _ in range(2))
    key = PairKey(draw(st.sampled_from("abc")), "test", 0)
    cost = {"prefix_tokens": views * 100, "branch_tokens": views * n * 10, "seconds": views * 0.5}
    return Evidence(key, candidates, [i == right for i in range(n)] if known else None, log_odds, likelihood, **cost)


@pytest.fixture(scope="session")
def evidences():
    """A function that makes a strategy of evidence: with given scores, outputs known or not."""
    return _evidences
