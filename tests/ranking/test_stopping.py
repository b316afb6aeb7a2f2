"""Stopping: predictions of what the views that are left will do, and who leaves when."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from lightning_arc.errors import DataError
from lightning_arc.ranking.stopping import EliminationState, StoppingConfig, overtaking

SEEDS = st.integers(0, 2**32 - 1)


def test_alone_a_difference_has_the_chance_of_students_t_for_a_finite_population() -> None:
    differences = np.array([1.0, 2.0, 4.0, 1.0])
    error = differences.std(ddof=1) / 2 * math.sqrt(1 - 4 / 16)
    expected = student.sf(differences.mean() / error, 3)
    assert overtaking(differences[:, None], 16, shared_variance=0) == pytest.approx([expected])


def test_variances_are_drawn_towards_those_of_the_same_test_input() -> None:
    rng = np.random.default_rng(0)
    differences = rng.normal(1, 1, (4, 3)) * [0.1, 1, 1]
    own, drawn = (overtaking(differences, 32, shared) for shared in (0, 4))
    error = np.sqrt((3 * differences.var(0, ddof=1) + 4 * differences.var(0, ddof=1).mean()) / 7 / 4 * (1 - 4 / 32))
    assert drawn == pytest.approx(student.sf(differences.mean(0) / error, 7))
    assert drawn[0] > own[0]


@pytest.mark.parametrize("views", (4, 8, 16))
def test_a_predicted_chance_comes_true_as_often_as_predicted(views: int) -> None:
    rng = np.random.default_rng(views)
    # means drawn from so wide a range that it tells nothing, which is what the prediction presumes
    whole = rng.normal(size=(32, 40_000)) + rng.uniform(-3, 3, 40_000)
    p = np.concatenate([overtaking(whole[:views, i : i + 1], 32, 0) for i in range(0, 4000)])
    came = whole[:, :4000].mean(0) <= 0
    for low, high in ((0.001, 0.05), (0.05, 0.3), (0.3, 0.7)):
        within = (p >= low) & (p < high)
        error = 3 * math.sqrt(high * (1 - low) / within.sum())
        assert abs(came[within].mean() - p[within].mean()) < error


def test_nothing_is_known_of_one_view_and_all_of_all() -> None:
    assert overtaking(np.array([[3.0]]), 8, 4).tolist() == [1]
    whole = np.array([[3.0, -1.0, 1.0], [-2.0, 0.0, -1.0]])
    assert overtaking(whole, 2, 4).tolist() == [0, 1, 0]


def test_views_that_all_agree_are_predicted_to_go_on_agreeing() -> None:
    assert overtaking(np.array([[1.0, -1.0, 0.0]] * 3), 8, 4).tolist() == [0, 1, 0]


def test_a_candidate_that_cannot_be_judged_is_not_waited_for() -> None:
    nan = math.nan
    state = EliminationState(3, StoppingConfig(min_views=2, places=1))
    table = np.array([[1.0, nan, 0.9], [1.2, nan, 1.3]])
    state.update(table, [0, 2, 1], 2)
    assert state.live == [0, 2]


@given(seed=SEEDS, n=st.integers(1, 12), confidence=st.sampled_from([0.5, 0.8, 0.95, 0.999]))
def test_no_more_than_the_allowed_chance_of_error_is_spent_and_those_who_left_stay_out(
    seed: int, n: int, confidence: float
) -> None:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(16, n)) + rng.normal(0, 2, n)
    state = EliminationState(n, StoppingConfig(min_views=2, max_views=16, confidence=confidence))
    before = set(state.live)
    for views in range(1, 17):
        order = np.argsort(-table[:views].mean(0), kind="stable").tolist()
        state.update(table[:views], order, views)
        now = set(state.live)
        assert now <= before and len(now) >= min(n, 2)
        assert state.spent <= (1 - confidence) * math.log1p((math.e - 1) * views / 16) + 1e-12
        if views < 2:
            assert len(now) == n
        assert 0 <= state.flip_probability <= 1
        before = now
    assert state.settled


@given(seed=SEEDS)
def test_more_confidence_keeps_candidates_longer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(6, 10)) + rng.normal(0, 2, 10)
    order = np.argsort(-table.mean(0), kind="stable").tolist()
    kept = []
    for confidence in (0.5, 0.9, 0.99, 1.0):
        state = EliminationState(10, StoppingConfig(max_views=32, confidence=confidence))
        state.update(table, order, 6)
        kept.append(set(state.live))
    assert kept[0] <= kept[1] <= kept[2] <= kept[3] == set(range(10))


def test_two_candidates_for_two_places_are_settled_after_the_least_views() -> None:
    state = EliminationState(2, StoppingConfig(min_views=3))
    for views in (1, 2, 3):
        assert not state.settled
        state.update(np.zeros((views, 2)), [0, 1], views)
    assert state.settled
    assert EliminationState(0, StoppingConfig()).settled


def test_no_candidate_leaves_where_all_views_are_requested() -> None:
    state = EliminationState(3, StoppingConfig(min_views=1, max_views=4, confidence=1))
    for views in range(1, 5):
        assert not state.settled
        state.update(np.array([[9.0, 5.0, 1.0]] * views), [0, 1, 2], views)
    assert state.settled and state.live == [0, 1, 2]


def test_candidates_that_are_not_scored_any_more_have_left() -> None:
    state = EliminationState(4, StoppingConfig())
    state.narrow([3, 1, 9])
    assert state.live == [1, 3]


def disagreements(spread: float, effects: float, tests: int = 150) -> tuple[float, float]:
    """Share of simulated test inputs whose chosen two differ from those of all views, and share of views used."""
    rng = np.random.default_rng(0)
    wrong = used = 0
    for _ in range(tests):
        own = rng.normal(0, spread, 10)
        table = own + rng.normal(0, 1.5, (32, 1)) + rng.normal(0, effects, (32, 10)) + rng.normal(0, 1, (32, 10))
        state, views = EliminationState(10, StoppingConfig()), 0
        while not state.settled:
            views += 1
            live = np.array(state.live)
            order = live[np.argsort(-table[:views, live].mean(0), kind="stable")].tolist()
            state.update(table[:views], order, views)
        live = np.array(state.live)
        early = set(live[np.argsort(-table[:views, live].mean(0), kind="stable")[:2]].tolist())
        wrong += early != set(np.argsort(-table.mean(0), kind="stable")[:2].tolist())
        used += views
    return wrong / tests, used / tests / 32


@pytest.mark.parametrize("spread", (0.5, 1.0, 3.0))
def test_at_95_percent_confidence_the_chosen_two_are_those_of_all_views_in_95_percent(spread: float) -> None:
    wrong, _ = disagreements(spread, effects=0)
    assert wrong <= 0.05


def test_views_that_are_not_common_have_to_be_more() -> None:
    (_, common), (_, own) = disagreements(3.0, effects=0), disagreements(3.0, effects=1.5)
    assert common < own - 0.05


@pytest.mark.parametrize(
    ("settings", "complaint"),
    (
        ({"min_views": 0}, "stopping.min_views is 0, expected at least 1"),
        ({"places": 0}, "stopping.places is 0, expected at least 1"),
        ({"shared_variance": -1}, "stopping.shared_variance is -1, expected at least 0"),
        ({"min_views": 5, "max_views": 4}, "stopping.max_views is 4, expected at least 5, min_views"),
        ({"confidence": 0}, "stopping.confidence is 0, expected more than 0, at most 1"),
        ({"confidence": 1.5}, "stopping.confidence is 1.5, expected more than 0, at most 1"),
        ({"max_tokens": -1}, "stopping.max_tokens is -1, expected 0 or more"),
        ({"max_seconds": -1}, "stopping.max_seconds is -1, expected 0 or more"),
    ),
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        StoppingConfig(**settings)
