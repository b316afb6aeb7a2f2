"""Means of paired views, their errors, and orders."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_arc.ranking.means import log_softmax, order_by, paired_means, standard_errors

NAN = math.nan
SEEDS = st.integers(0, 2**32 - 1)


def test_without_gaps_they_are_plain_means() -> None:
    table = np.random.default_rng(0).normal(size=(5, 4))
    assert paired_means(table) == pytest.approx(table.mean(0))


@given(seed=SEEDS)
def test_a_sum_of_views_and_candidates_is_recovered_whatever_gaps_there_are(seed: int) -> None:
    rng = np.random.default_rng(seed)
    views, candidates = rng.normal(size=(6, 1)), rng.normal(size=5)
    table = views + candidates
    gaps = rng.random(table.shape) < 0.3
    gaps[0], gaps[:, 0] = False, False  # a view and a candidate that link all others
    assert paired_means(np.where(gaps, NAN, table)) == pytest.approx(candidates + views.mean(), abs=1e-9)


def test_a_candidate_that_was_judged_in_easy_views_alone_is_not_better_for_it() -> None:
    table = [[5.0, 5.5, NAN], [-5.0, NAN, -6.0]]
    # the second beats the first by 0.5 where both stand, the third loses by 1
    assert paired_means(np.array(table)) == pytest.approx([0.0, 0.5, -1.0])


@pytest.mark.parametrize("table", (np.empty((0, 3)), np.full((2, 3), NAN)))
def test_without_values_there_are_no_means(table: np.ndarray) -> None:
    assert np.isnan(paired_means(table)).all() and np.isnan(standard_errors(table)).all()


def test_errors_are_those_of_the_columns() -> None:
    table = np.array([[1.0, 2.0, NAN], [3.0, NAN, NAN], [8.0, 4.0, 1.0]])
    expected = [np.std([1, 3, 8], ddof=1) / math.sqrt(3), 1.0, NAN]
    assert standard_errors(table) == pytest.approx(expected, nan_ok=True)


def test_an_order_is_by_the_first_key_that_differs_then_by_the_input() -> None:
    assert order_by(np.array([1, 2, 1, NAN, 1 + 1e-12]), np.array([0, 0, 1, 9, 1])).tolist() == [1, 2, 4, 0, 3]
    assert order_by(np.zeros(0)).tolist() == []


@given(values=st.lists(st.floats(-1e6, 1e6) | st.just(NAN), min_size=1, max_size=5))
def test_choices_by_scores_sum_to_one_with_what_is_chosen_otherwise(values: list[float]) -> None:
    scores = np.array(values)
    if np.isnan(scores).all():
        assert np.isnan(log_softmax(scores)).all()
    else:
        assert np.exp(log_softmax(scores)).sum() == pytest.approx(1)
    top = np.nanmax(np.append(scores, -7.0))
    other = math.exp(-7.0 - top) / (math.exp(-7.0 - top) + np.nansum(np.exp(scores - top)))
    assert np.exp(log_softmax(scores, -7.0)).sum() == pytest.approx(1 - other)
