"""Rankers: what they order by, what settles ties, and what they say about being right."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_arc.arc import Candidate, PairKey
from lightning_arc.ranking.evidence import Evidence
from lightning_arc.ranking.rankers import RANKERS, Ranking, mean_and_error, rank_by_votes

each_ranker = pytest.mark.parametrize("name", RANKERS)


def evidence(log_odds: Any, log_likelihood: Any, votes: list[int]) -> Evidence:
    candidates = tuple(Candidate(np.full((1, 1), i, np.int8), v) for i, v in enumerate(votes))
    log_odds, log_likelihood = (np.array(x, float).reshape(len(x), len(votes)) for x in (log_odds, log_likelihood))
    return Evidence(PairKey("t", "test", 0), candidates, None, log_odds, log_likelihood)


def keys(name: str, said: Evidence, ranking: Ranking) -> list[tuple[float, ...]]:
    """What each candidate is ordered by, smallest first, without its place in the input."""
    likelihood, _ = mean_and_error(said.log_likelihood)
    ties = {"vote": (), "verifier": (said.votes, likelihood), "likelihood": (said.votes,)}[name]
    columns = [np.where(np.isnan(key), np.inf, -np.asarray(key, float)) for key in (ranking.score, *ties)]
    return list(zip(*(column.tolist() for column in columns), strict=True))


@each_ranker
@given(data=st.data())
def test_every_order_is_by_score_then_the_ties_then_the_input(name: str, data: st.DataObject, evidences: Any) -> None:
    said = data.draw(evidences())
    ranking = RANKERS[name](said)
    key = keys(name, said, ranking)
    assert ranking.order.tolist() == sorted(range(len(key)), key=lambda i: (key[i], i))


@each_ranker
@given(data=st.data())
def test_the_order_of_the_input_settles_full_ties_and_nothing_else(
    name: str, data: st.DataObject, evidences: Any
) -> None:
    said = data.draw(evidences())
    shuffle = np.array(data.draw(st.permutations(range(len(said.candidates)))), int)
    candidates = tuple(said.candidates[i] for i in shuffle)
    other = Evidence(said.key, candidates, None, said.log_odds[:, shuffle], said.log_likelihood[:, shuffle])
    one, two = RANKERS[name](said), RANKERS[name](other)
    before, after = keys(name, said, one), keys(name, other, two)
    assert [before[i] for i in one.order] == [after[i] for i in two.order]
    for field in ("score", "p_correct", "stderr"):
        assert np.allclose(getattr(one, field)[shuffle], getattr(two, field), equal_nan=True)


@each_ranker
@given(data=st.data())
def test_every_probability_is_one_and_falls_along_the_order(name: str, data: st.DataObject, evidences: Any) -> None:
    ranking = RANKERS[name](data.draw(evidences()))
    p = ranking.p_correct[ranking.order]
    known = p[~np.isnan(p)]
    assert ((known >= 0) & (known <= 1)).all()
    assert (np.diff(known) <= 1e-12).all()


@given(data=st.data())
def test_voting_knows_nothing_of_the_model(data: st.DataObject, evidences: Any) -> None:
    said = data.draw(evidences())
    silent = Evidence(said.key, said.candidates, None, said.log_odds[:0], said.log_likelihood[:0])
    assert rank_by_votes(said).order.tolist() == rank_by_votes(silent).order.tolist()


@each_ranker
@given(data=st.data(), harder=st.lists(st.integers(-50, 50), min_size=3, max_size=3))
def test_a_view_that_is_harder_for_all_candidates_changes_no_order(
    name: str, data: st.DataObject, harder: list[int], evidences: Any
) -> None:
    said = data.draw(evidences(scores=st.integers(-3, 3).map(float)))
    shift = np.array(harder[: len(said.log_odds)])[:, None]
    shifted = Evidence(said.key, said.candidates, None, said.log_odds + shift, said.log_likelihood + shift)
    assert RANKERS[name](said).order.tolist() == RANKERS[name](shifted).order.tolist()


def test_ties_go_to_votes_then_likelihood_then_the_input() -> None:
    nan = math.nan
    said = evidence([[1, 1, 1, 1, 2, nan]], [[-3, -2, -2, -9, -9, 0]], votes=[1, 1, 1, 2, 1, 9])
    assert RANKERS["verifier"](said).order.tolist() == [4, 3, 1, 2, 0, 5]
    assert RANKERS["likelihood"](said).order.tolist() == [5, 1, 2, 0, 3, 4]
    assert RANKERS["vote"](said).order.tolist() == [5, 3, 0, 1, 2, 4]


def test_the_verifier_says_the_mean_its_error_and_its_probability() -> None:
    ranking = RANKERS["verifier"](evidence([[1, 0, -900], [3, math.nan, -900]], [[0] * 3] * 2, [1, 1, 1]))
    assert ranking.score.tolist() == [2, 0, -900]
    assert ranking.stderr[0] == pytest.approx(np.std([1, 3], ddof=1) / math.sqrt(2)) == 1
    assert math.isnan(ranking.stderr[1]) and ranking.stderr[2] == 0
    assert ranking.p_correct == pytest.approx([1 / (1 + math.exp(-2)), 0.5, 0])


def test_the_likelihood_is_shared_among_the_candidates_however_small_it_is() -> None:
    ranking = RANKERS["likelihood"](
        evidence([[0] * 3] * 2, [[-5000, -5001, math.nan], [-5002, -5001, math.nan]], [1] * 3)
    )
    assert ranking.p_correct.tolist() == [0.5, 0.5, 0]


@each_ranker
@pytest.mark.parametrize("votes", ([], [3], [1, 2]))
def test_candidates_that_no_model_judged_are_ordered_by_votes(name: str, votes: list[int]) -> None:
    ranking = RANKERS[name](evidence([], [], votes))
    assert ranking.order.tolist() == sorted(range(len(votes)), key=lambda i: -votes[i])
    assert {len(x) for x in (ranking.order, ranking.score, ranking.p_correct, ranking.stderr)} == {len(votes)}
