"""Calibration: fitted against what others fit, and what holds for every fit."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression
from scipy.special import expit

from lightning_arc.errors import DataError
from lightning_arc.ranking.calibration import (
    Isotonic,
    Temperature,
    fit_isotonic,
    fit_temperature,
)


@given(
    pairs=st.lists(st.tuples(st.floats(-50, 50), st.booleans()), min_size=1, max_size=40),
    fit=st.sampled_from([fit_temperature, fit_isotonic]),
)
def test_every_fit_rises_and_gives_probabilities(pairs: list[tuple[float, bool]], fit: object) -> None:
    log_odds, correct = np.array([x for x, _ in pairs]), np.array([y for _, y in pairs])
    calibration = fit(log_odds, correct)
    p = calibration(np.array([-math.inf, *np.linspace(-60, 60, 50), math.inf]))
    assert ((p >= 0) & (p <= 1)).all() and (np.diff(p) >= -1e-12).all()
    assert np.isnan(calibration(np.array([math.nan]))).all()


def test_an_isotonic_fit_has_the_same_steps_as_its_regression() -> None:
    rng = np.random.default_rng(0)
    log_odds = rng.normal(0, 2, 300)
    correct = rng.random(300) < expit(log_odds)
    order = np.argsort(log_odds)
    expected = isotonic_regression(correct[order].astype(float)).x
    assert fit_isotonic(log_odds, correct)(log_odds[order]) == pytest.approx(expected)


def test_a_temperature_that_was_true_is_found() -> None:
    rng = np.random.default_rng(0)
    log_odds = rng.normal(0, 3, 20_000)
    found = fit_temperature(np.append(log_odds, math.nan), np.append(rng.random(20_000) < expit(log_odds / 2 - 1), 0))
    assert (found.scale, found.shift) == pytest.approx((0.5, -1.0), abs=0.05)


def test_no_more_scale_is_given_to_what_is_no_better_than_chance_or_worse() -> None:
    log_odds = np.array([3.0, 3, -3, -3])
    assert fit_temperature(log_odds, np.array([False, False, True, True])).scale == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    (
        (([], []), "one at least"),
        (([1.0], [0.1, 0.2]), "as many"),
        (([1.0, 0.0], [0.1, 0.2]), "fall somewhere"),
        (([0.0, 1.0], [0.2, 0.1]), "fall somewhere"),
    ),
)
def test_what_does_not_rise_is_refused(arguments: tuple, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        Isotonic(*arguments)


def test_a_scale_below_nothing_and_nothing_to_fit_to_are_refused() -> None:
    with pytest.raises(DataError, match=r"calibration.scale is -1, expected 0 or more"):
        Temperature(-1)
    for fit in (fit_temperature, fit_isotonic):
        with pytest.raises(DataError, match="nothing to fit it to"):
            fit(np.array([math.nan]), np.array([True]))
