"""Means over views that compare candidates under the views they have in common."""

import numpy as np
from numpy.typing import NDArray

DECIMALS = 9
"""Scores that differ by no more than this are a tie."""


def paired_means(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each candidate's mean over views, as if it had been judged under all of them.

    Candidates are judged under different numbers of views, and some views are harder than others for all candidates.
    Each value is modelled as an effect of its view plus an effect of its candidate, fitted by least squares (a two-way
    layout; Yates, 1934), so that candidates are compared under common views. Without gaps these are the plain means.

    Args:
        table: ``(views, n)``, nan where missing.

    Returns:
        ``(n,)`` means, nan where a candidate has no value.
    """
    known = ~np.isnan(table)
    rows = known.any(1)
    table, known = table[rows], known[rows]
    counts = known.sum(0)
    means = np.full(table.shape[1], np.nan)
    judged = counts > 0
    if not judged.any():
        return means
    if known[:, judged].all():
        means[judged] = table[:, judged].mean(0)
        return means
    table, known, counts = np.where(known, table, 0)[:, judged], known[:, judged].astype(float), counts[judged]
    plain = table.sum(0) / counts
    # Eliminating the candidates' means leaves as many equations as there are views.
    equations = np.diag(known.sum(1)) - (known / counts) @ known.T
    views = np.linalg.lstsq(equations, table.sum(1) - known @ plain, rcond=None)[0]
    means[judged] = plain - (views @ known) / counts + views.mean()
    return means


def standard_errors(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard errors of the columns' means.

    Args:
        table: ``(views, n)``, nan where missing.

    Returns:
        ``(n,)`` standard errors, nan with fewer than two values.
    """
    known = ~np.isnan(table)
    counts = known.sum(0)
    values = np.where(known, table, 0)
    deviations = np.where(known, values - values.sum(0) / np.maximum(counts, 1), 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = np.sqrt((deviations**2).sum(0) / (counts - 1) / counts)
    return np.where(counts > 1, errors, np.nan)


def order_by(*keys: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Order by the first key, largest first, ties by the next; nan comes last; then input order."""
    if not len(keys[0]):
        return np.zeros(0, np.int64)
    descending = [-np.where(np.isnan(key), -np.inf, np.round(key, DECIMALS)) for key in np.asarray(keys, float)]
    return np.lexsort(descending[::-1])


def log_softmax(scores: NDArray[np.float64], other: float | None = None) -> NDArray[np.float64]:
    """Return the log-probabilities of a choice by scores; nan counts as impossible.

    Args:
        scores: ``(n,)``.
        other: score of a further option, ``None`` for none.
    """
    filled = np.where(np.isnan(scores), -np.inf, scores)
    options = filled if other is None else np.append(filled, other)
    if not np.isfinite(options).any():
        return np.full(len(scores), np.nan)
    return filled - np.logaddexp.reduce(options)
