"""Selection: who is shown beside whom, and what choices make of their order."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_arc.arc import Candidate, PairKey
from lightning_arc.errors import DataError
from lightning_arc.prompt.templates import MAX_OPTIONS
from lightning_arc.ranking.rankers.comparative import ComparativeRanker
from lightning_arc.ranking.records import Choice, ScoringRequest, ViewScores
from lightning_arc.ranking.scores import CandidateScores

KEY = PairKey("t", "test", 0)


def candidates(n: int) -> CandidateScores:
    return CandidateScores(KEY, tuple(Candidate(np.full((1, 2), i, np.int8), n - i) for i in range(n)))


def choose(question: ScoringRequest, strengths: np.ndarray) -> ViewScores:
    """Answer as a model would that knows the strengths."""
    n = len(strengths)
    choices = tuple(Choice(order, tuple(strengths[list(order)].tolist())) for order in question.selections)
    return ViewScores(question.key, question.view, [math.nan] * n, [math.nan] * n, 1, 1, selections=choices)


@given(n=st.integers(2, 30), view=st.integers(0, 5), orders=st.integers(1, 3), options=st.integers(2, 9))
def test_lists_show_every_contestant_once_in_each_order_and_never_too_many(
    n: int, view: int, orders: int, options: int
) -> None:
    ranker = ComparativeRanker("list", entrants=20, halving=False, orders=orders, max_options=options)
    (question,) = ranker.ask(candidates(n), range(n), view)
    assert question == ranker.ask(candidates(n), range(n), view)[0]
    shown = [place for order in question.selections for place in order]
    assert sorted(shown) == sorted([*range(min(n, 20))] * orders)
    assert all(len(order) <= options for order in question.selections)
    if n <= options:
        assert len(question.selections) == orders
    assert not question.candidates


def test_lists_are_shuffled_anew_for_every_view_and_test_input() -> None:
    ranker, others = (
        ComparativeRanker(halving=False),
        CandidateScores(PairKey("u", "test", 0), candidates(9).candidates),
    )
    requests = [
        ranker.ask(candidates(9), range(9), 0),
        ranker.ask(candidates(9), range(9), 1),
        ranker.ask(others, range(9), 0),
    ]
    assert len({question.selections for (question,) in requests}) == 3


def test_pairs_are_shown_in_both_orders() -> None:
    (question,) = ComparativeRanker("pairs", halving=False).ask(candidates(4), [0, 1, 3], 0)
    assert set(question.selections) == {(0, 1), (1, 0), (0, 3), (3, 0), (1, 3), (3, 1)}
    assert len(question.selections) == 6


def test_half_of_the_contestants_leave_after_every_view_down_to_the_survivors() -> None:
    ranker, evidence = ComparativeRanker("pairs", entrants=12, survivors=3), candidates(14)
    strengths = np.random.default_rng(0).permutation(14) / 2
    sizes = []
    for view in range(4):
        (question,) = ranker.ask(evidence, range(14), view)
        shown = {place for order in question.selections for place in order}
        sizes.append(len(shown))
        evidence.take(choose(question, strengths))
    assert sizes == [12, 6, 3, 3]
    entered = strengths[:12]
    assert shown == set(np.argsort(-entered)[:3].tolist())
    ranking = ranker.rank(evidence)
    assert ranking.order[:3].tolist() == np.argsort(-entered)[:3].tolist()
    assert ranking.order[-2:].tolist() == [12, 13] and np.isnan(ranking.score[12:]).all()


@pytest.mark.parametrize("style", ("pairs", "list"))
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 12))
def test_choices_by_strengths_put_them_in_their_order(style: str, seed: int, n: int) -> None:
    ranker, evidence = ComparativeRanker(style, halving=False, orders=3), candidates(n)
    strengths = np.random.default_rng(seed).permutation(n) * 0.5
    for view in range(3):
        (question,) = ranker.ask(evidence, range(n), view)
        evidence.take(choose(question, strengths))
    ranking = ranker.rank(evidence)
    if style == "pairs" or n <= MAX_OPTIONS:
        assert ranking.order.tolist() == np.argsort(-strengths).tolist()
        assert (np.diff(ranking.score[ranking.order]) < 0).all()
    assert ranking.p_correct.sum() == pytest.approx(1)
    assert ranker.table(evidence).shape == (3, n)


def test_a_lone_candidate_is_not_compared() -> None:
    assert ComparativeRanker().ask(candidates(1), [0], 0) == () and ComparativeRanker().ask(candidates(3), [2], 1) == ()


def test_no_candidate_has_strength_or_probability_before_any_selection(scores_of: Any) -> None:
    ranking = ComparativeRanker().rank(scores_of([], votes=[1, 4]))
    assert ranking.order.tolist() == [1, 0] and np.isnan(ranking.p_correct).all()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    (
        ({"entrants": 1}, "ranker.entrants is 1, expected at least 2"),
        ({"survivors": 1}, "ranker.survivors is 1, expected at least 2"),
        ({"orders": 0}, "ranker.orders is 0, expected at least 1"),
        ({"max_options": 10}, "ranker.max_options is 10, expected at most 9"),
        ({"prior": 0}, "ranker.prior is 0, expected more than 0"),
    ),
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        ComparativeRanker(**settings)
