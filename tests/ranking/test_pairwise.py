"""Strengths of pairwise wins and of choices."""

import choix
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_arc.ranking.rankers.bradley_terry import bradley_terry, soft_wins

SEEDS = st.integers(0, 2**32 - 1)


@given(seed=SEEDS, n=st.integers(2, 8), prior=st.sampled_from([0.05, 0.1, 1.0]))
def test_strengths_are_those_of_choix_with_the_prior_as_wins(seed: int, n: int, prior: float) -> None:
    wins = np.random.default_rng(seed).integers(0, 5, (n, n)).astype(float)
    np.fill_diagonal(wins, 0)
    with_prior = (wins + prior) * (1 - np.eye(n))
    expected = choix.ilsr_pairwise_dense(with_prior, tol=1e-12, max_iter=10_000)
    assert bradley_terry(wins, prior) == pytest.approx(expected - expected.mean(), abs=1e-6)


@given(seed=SEEDS)
def test_strengths_go_with_the_candidates_and_turn_round_with_the_wins(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wins, shuffle = rng.integers(0, 5, (5, 5)), rng.permutation(5)
    strengths = bradley_terry(wins)
    assert strengths.sum() == pytest.approx(0, abs=1e-9)
    assert bradley_terry(wins[np.ix_(shuffle, shuffle)]) == pytest.approx(strengths[shuffle], abs=1e-7)
    assert bradley_terry(wins.T) == pytest.approx(-strengths, abs=1e-7)


def test_two_candidates_are_as_far_apart_as_their_wins() -> None:
    assert bradley_terry([[0, 3], [1, 0]], prior=1) == pytest.approx([np.log(2) / 2, -np.log(2) / 2])


def test_an_unbeaten_candidate_stays_finite() -> None:
    strengths = bradley_terry([[0, 1000, 1000], [0, 0, 1000], [0, 0, 0]], prior=1e-3)
    assert np.isfinite(strengths).all() and (np.diff(strengths) < 0).all()


def test_nobody_and_one_alone_have_no_strength() -> None:
    assert bradley_terry(np.zeros((0, 0))).tolist() == [] and bradley_terry(np.zeros((1, 1))).tolist() == [0]


@pytest.mark.parametrize("wins", ([[0, 1]], [[0, -1], [0, 0]], [[0, np.nan], [0, 0]], [0, 1]))
def test_what_is_no_square_of_counts_is_refused(wins: list) -> None:
    with pytest.raises(ValueError, match="expected a square of counts"):
        bradley_terry(wins)


def test_a_prior_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="prior is 0, expected more than 0"):
        bradley_terry([[0, 1], [1, 0]], prior=0)


def test_wins_of_a_choice_are_its_shares_over_every_other_option() -> None:
    log_probs = np.log([0.5, 0.3, 0.1])  # the number of none of them has the rest
    wins, shown = soft_wins([(1.0, (3, 0, 2), log_probs), (2.0, (0, 3), np.log([0.2, 0.8]))], 4)
    assert shown.tolist() == [True, False, True, True]
    assert wins[3].tolist() == pytest.approx([5 / 9 + 1.6, 0, 5 / 9, 0])
    assert wins[0].tolist() == pytest.approx([0, 0, 3 / 9, 3 / 9 + 0.4])


@given(seed=SEEDS)
def test_strengths_of_choices_are_recovered_from_their_probabilities(seed: int) -> None:
    rng = np.random.default_rng(seed)
    strengths = rng.normal(size=6)
    strengths -= strengths.mean()
    groups = [rng.permutation(6)[:4] for _ in range(60)]
    wins, shown = soft_wins([(100.0, group, strengths[group]) for group in groups], 6)
    assert shown.all()
    assert bradley_terry(wins, prior=1e-6) == pytest.approx(strengths, abs=1e-3)
