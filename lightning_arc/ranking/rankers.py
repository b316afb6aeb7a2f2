"""Rankers: from evidence about candidates to their order.

Knows evidence. Knows nothing of files, models or which candidates are right. Every order is stable and does not depend
on anything but the evidence; ties are settled by votes, then likelihood, then input order.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_arc.ranking.evidence import Evidence


@dataclass(frozen=True, eq=False)
class Ranking:
    """The candidates of one test input in order; everything but ``order`` stays in input order.

    Args:
        order: ``(n,)`` places of the candidates, best first.
        score: ``(n,)`` what they are ordered by.
        p_correct: ``(n,)`` estimated probability of being right.
        stderr: ``(n,)`` standard error of the score, nan where unknown.
    """

    order: NDArray[np.int64]
    score: NDArray[np.float64]
    p_correct: NDArray[np.float64]
    stderr: NDArray[np.float64]


def rank_by_votes(evidence: Evidence) -> Ranking:
    """Order by votes, then input order: the baseline, which asks no model. ``p_correct`` is the share of votes."""
    votes = evidence.votes.astype(float)
    unknown = np.full(len(votes), np.nan)
    return Ranking(_order(votes), votes, votes / max(votes.sum(), 1), unknown)


def rank_by_verifier(evidence: Evidence) -> Ranking:
    """Order by the mean log-odds over common views; ``p_correct`` is its logistic function."""
    score, stderr = mean_and_error(evidence.log_odds)
    likelihood, _ = mean_and_error(evidence.log_likelihood)
    order = _order(score, evidence.votes, likelihood)
    return Ranking(order, score, probability(score), stderr)


def rank_by_likelihood(evidence: Evidence) -> Ranking:
    """Order by the mean log-likelihood over views, a product of experts; ``p_correct`` is its softmax."""
    score, stderr = mean_and_error(evidence.log_likelihood)
    filled = np.where(np.isnan(score), -np.inf, score)
    if not np.isfinite(filled).any():
        p_correct = np.full(len(score), np.nan)
    else:
        shifted = np.exp(filled - filled.max())
        p_correct = shifted / shifted.sum()
    return Ranking(_order(score, evidence.votes), score, p_correct, stderr)


RANKERS: dict[str, Callable[[Evidence], Ranking]] = {
    "vote": rank_by_votes,
    "verifier": rank_by_verifier,
    "likelihood": rank_by_likelihood,
}
"""Every ranker by the name that ``metrics.json`` gives it."""


def probability(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probabilities of log-odds."""
    return 1 / (1 + np.exp(-np.clip(log_odds, -500, 500)))


def mean_and_error(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard error over views.

    Args:
        values: ``(views, n)``, nan where missing.

    Returns:
        ``(n,)`` means, nan where there is no value, and ``(n,)`` standard errors, nan with fewer than two.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        mean = np.nanmean(values, axis=0)
        error = np.nanstd(values, axis=0, ddof=1) / np.sqrt((~np.isnan(values)).sum(0))
    return mean, error


def _order(*keys: NDArray[np.float64]) -> NDArray[np.int64]:
    """Order by the first key, largest first, ties by the next; nan comes last; then input order."""
    descending = [-np.where(np.isnan(np.asarray(key, float)), -np.inf, key) for key in keys]
    return np.lexsort(descending[::-1]) if len(keys[0]) else np.zeros(0, np.int64)
