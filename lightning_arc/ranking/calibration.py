"""Calibration: probabilities that come true as often as they say.

Calibrations are fitted on candidates of training tasks and used on other tasks.
"""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit

from lightning_arc.errors import DataError

FURTHEST = 30.0
"""Bound of log-odds, so that certain answers stay finite."""


class Calibration(ABC):
    """A non-decreasing map from log-odds to the probability of being right."""

    @abstractmethod
    def __call__(self, log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return probabilities; nan stays nan."""


class Temperature(Calibration):
    """Platt scaling: a scaled and shifted logistic function (Platt, 1999); temperature scaling where the shift is 0.

    Args:
        scale: factor of log-odds; below 1 for an overconfident model.
        shift: added to the scaled log-odds.
    """

    def __init__(self, scale: float = 1.0, shift: float = 0.0) -> None:
        if scale < 0:
            raise DataError(f"calibration.scale is {scale}, expected 0 or more")
        self.scale, self.shift = scale, shift

    def __call__(self, log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
        return expit(self.scale * np.clip(log_odds, -FURTHEST, FURTHEST) + self.shift)


class Isotonic(Calibration):
    """Isotonic regression with linear interpolation (Zadrozny and Elkan, 2002).

    Args:
        log_odds: the fitted points, rising.
        probability: the probabilities at these points.
    """

    def __init__(self, log_odds: list[float], probability: list[float]) -> None:
        if not log_odds or len(log_odds) != len(probability):
            raise DataError("calibration: expected as many probabilities as log-odds, one at least")
        if (np.diff(log_odds) < 0).any() or (np.diff(probability) < 0).any():
            raise DataError("calibration: log-odds and probabilities fall somewhere, expected both to rise")
        self.log_odds, self.probability = log_odds, probability

    def __call__(self, log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
        known = np.interp(np.clip(log_odds, -FURTHEST, FURTHEST), self.log_odds, self.probability)
        return np.where(np.isnan(log_odds), np.nan, known)


def fit_temperature(log_odds: NDArray[np.float64], correct: NDArray[np.bool_]) -> Temperature:
    """Fit a `Temperature` by maximum likelihood, with Platt's targets, which are a little off 0 and 1.

    Args:
        log_odds: ``(n,)``, nan ones are passed over.
        correct: ``(n,)`` whether each was right.
    """
    x, y = _known(log_odds, correct)
    right = y.sum()
    target = np.where(y, (right + 1) / (right + 2), 1 / (len(y) - right + 2))

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = parameters[0] * x + parameters[1]
        error = expit(z) - target
        return float((np.logaddexp(0, z) - target * z).sum()), np.array([error @ x, error.sum()])

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)])
    return Temperature(float(found.x[0]), float(found.x[1]))


def fit_isotonic(log_odds: NDArray[np.float64], correct: NDArray[np.bool_]) -> Isotonic:
    """Fit an `Isotonic` by least squares.

    Args:
        log_odds: ``(n,)``, nan ones are passed over.
        correct: ``(n,)`` whether each was right.
    """
    x, y = _known(log_odds, correct)
    places, place = np.unique(x, return_inverse=True)
    counts = np.bincount(place)
    level = isotonic_regression(np.bincount(place, y) / counts, weights=counts).x
    # Only the two ends of each level are needed.
    ends = np.flatnonzero(np.diff(level, prepend=-1) + np.diff(level, append=2))
    return Isotonic(places[ends].tolist(), level[ends].tolist())


def _known(log_odds: NDArray[np.float64], correct: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    known = ~np.isnan(log_odds)
    if not known.any():
        raise DataError("calibration: nothing to fit it to")
    return np.clip(log_odds[known], -FURTHEST, FURTHEST), np.asarray(correct, bool)[known]
