"""Strengths of candidates, estimated from choices among them."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

TOLERANCE = 1e-10
"""Largest gradient at the end, in games of a pair."""


def bradley_terry(wins: NDArray[np.float64], prior: float = 0.1) -> NDArray[np.float64]:
    """Estimate log-strengths from pairwise wins (Bradley and Terry, 1952).

    The likelihood is concave; its maximum is found by a Newton method within a trust region.

    Args:
        wins: ``(n, n)`` counts; ``wins[i, j]`` is how often candidate ``i`` beat candidate ``j``. They may be shares.
        prior: virtual wins added both ways between every pair, so that an unbeaten candidate stays finite.

    Returns:
        ``(n,)`` log-strengths with mean zero.

    Raises:
        ValueError: if ``wins`` is not square or holds a negative count, or ``prior`` is not positive.
    """
    wins = np.asarray(wins, float)
    if wins.ndim != 2 or wins.shape[0] != wins.shape[1] or (wins < 0).any() or not np.isfinite(wins).all():
        raise ValueError(f"wins has shape {wins.shape}, expected a square of counts of 0 and more")
    if prior <= 0:
        raise ValueError(f"prior is {prior}, expected more than 0")
    n = len(wins)
    if n < 2:
        return np.zeros(n)
    wins = (wins + prior) * (1 - np.eye(n))
    games = wins + wins.T

    def loss(strengths: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        behind = strengths[None, :] - strengths[:, None]
        # The likelihood ignores a constant added to all strengths; the square fixes it.
        value = (wins * np.logaddexp(0, behind)).sum() + strengths.sum() ** 2 / (2 * n)
        return value, (games * expit(-behind) - wins).sum(1) + strengths.sum() / n

    def hessian(strengths: NDArray[np.float64]) -> NDArray[np.float64]:
        p = expit(strengths[:, None] - strengths[None, :])
        between = games * p * (1 - p)
        return np.diag(between.sum(1)) - between + 1 / n

    tolerance = TOLERANCE * games.max()
    found = minimize(loss, np.zeros(n), jac=True, hess=hessian, method="trust-exact", options={"gtol": tolerance})
    return found.x - found.x.mean()


def soft_wins(
    selections: Iterable[tuple[float, Sequence[int], Sequence[float]]], n: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Count the wins of choices among several candidates, as shares.

    The probability that candidate ``i`` is chosen counts as its win over each other option. Under Luce's choice axiom
    the expected wins of two options are in proportion to their strengths, so that `bradley_terry` of them is consistent
    (Azari Soufiani et al., 2013). With two options this is the plain soft win.

    Args:
        selections: weight, places of the options as they were shown, and the log-probability of each.
        n: number of candidates.

    Returns:
        ``(n, n)`` wins and ``(n,)`` whether a candidate was an option at all.
    """
    wins, shown = np.zeros((n, n)), np.zeros(n, bool)
    for weight, order, log_probs in selections:
        places = np.asarray(order, int)
        shares = np.exp(np.asarray(log_probs, float) - np.max(log_probs))
        wins[np.ix_(places, places)] += weight * (shares / shares.sum())[:, None]
        shown[places] = True
    np.fill_diagonal(wins, 0)
    return wins, shown
