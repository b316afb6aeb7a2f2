"""Early stopping: which candidates are still in question, and when enough has been asked.

The question is not whether two candidates differ in truth, but whether the views that are left would change which
ones are chosen. After ``m`` of ``M`` views the mean of a paired difference over all ``M`` is predicted by its mean so
far, with the standard error ``s / sqrt(m) * sqrt(1 - m / M)``, and Student's t with ``m - 1`` degrees of freedom is
exact for normal differences (prediction for a finite population; Cochran, 1977, chapter 2). The variance of a
difference from few views is poor, so that it is drawn towards the mean of the variances of the same test input, which
adds degrees of freedom (the moderated t; Smyth, 2004).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from lightning_arc.errors import DataError


@dataclass(frozen=True)
class StoppingConfig:
    """When requests about test inputs end.

    Args:
        min_views: views of every test input before any is settled.
        max_views: most views of a test input.
        confidence: a test input is settled when the remaining views would change its chosen candidates with a
            probability of at most 1 minus this; 1 asks for all views.
        places: number of candidates that are chosen for a test input.
        shared_variance: weight, in views, of the assumption that all differences of a test input have one variance.
        max_tokens: budget of all test inputs together; ``null`` for none.
        max_seconds: time after which the best order so far stands; ``null`` for none.

    Raises:
        DataError: names the invalid setting.
    """

    min_views: int = 4
    max_views: int = 32
    confidence: float = 0.95
    places: int = 2
    shared_variance: float = 4.0
    max_tokens: int | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("min_views", 1), ("places", 1), ("shared_variance", 0)):
            if getattr(self, name) < least:
                raise DataError(f"stopping.{name} is {getattr(self, name)}, expected at least {least}")
        if self.max_views < self.min_views:
            raise DataError(f"stopping.max_views is {self.max_views}, expected at least {self.min_views}, min_views")
        if not 0 < self.confidence <= 1:
            raise DataError(f"stopping.confidence is {self.confidence}, expected more than 0, at most 1")
        for name in ("max_tokens", "max_seconds"):
            if getattr(self, name) is not None and getattr(self, name) < 0:
                raise DataError(f"stopping.{name} is {getattr(self, name)}, expected 0 or more")


class EliminationState:
    """Which candidates of one test input are still in question.

    Eliminating a candidate costs the predicted probability that it would have been chosen in the end; the least likely
    ones are eliminated first. The sum over all candidates and looks bounds the probability of any wrong elimination and
    stays within ``1 - confidence``. It is spent over the looks (Lan and DeMets, 1983, with the function of Pocock's
    type): after ``m`` of ``M`` views at most ``(1 - confidence) * log(1 + (e - 1) * m / M)``. The predictions assume
    nothing about how far candidates lie apart; among equally good candidates, choices change more often than predicted.

    Args:
        n: number of candidates.
        stopping: the settings.
    """

    def __init__(self, n: int, stopping: StoppingConfig) -> None:
        self.stopping = stopping
        self.live = list(range(n))
        self.views = 0
        self.spent = 0.0
        self.flip_probability = 1.0
        """The greatest probability that a live candidate that is not chosen now will be in the end."""

    @property
    def settled(self) -> bool:
        """Whether the remaining views are not needed."""
        if self.views >= self.stopping.max_views or not self.live:
            return True
        chosen = len(self.live) <= self.stopping.places
        return chosen and self.views >= self.stopping.min_views and self.stopping.confidence < 1

    def update(self, table: NDArray[np.float64], order: Sequence[int], views: int) -> None:
        """Eliminate candidates.

        Args:
            table: ``(views, n)`` score of each candidate under each view, nan where missing.
            order: places of the candidates, best first.
            views: how many views have been asked.
        """
        self.views = views
        if views < self.stopping.min_views or self.stopping.confidence >= 1 or len(self.live) <= self.stopping.places:
            return
        still = set(self.live)
        ranked = [i for i in order if i in still]
        chosen, rest = ranked[: self.stopping.places], np.array(ranked[self.stopping.places :])
        returns = np.max([self._returns(table, leader, rest) for leader in chosen], axis=0)
        surest = np.argsort(returns, kind="stable")
        share = np.log1p((np.e - 1) * min(views / self.stopping.max_views, 1))
        room = (1 - self.stopping.confidence) * share - self.spent
        leave = surest[np.cumsum(returns[surest]) <= room]
        self.spent += float(returns[leave].sum())
        left = set(rest[leave].tolist())
        self.live = [i for i in self.live if i not in left]
        stay = np.setdiff1d(np.arange(len(rest)), leave)
        self.flip_probability = float(returns[stay].max()) if len(stay) else 0.0

    def narrow(self, places: Iterable[int]) -> None:
        """Keep those that are still asked about."""
        kept = set(places)
        self.live = [i for i in self.live if i in kept]

    def _returns(self, table: NDArray[np.float64], leader: int, others: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the probabilities that each of some candidates comes before a leader after all views."""
        differences = table[:, [leader]] - table[:, others]
        return overtaking(differences, self.stopping.max_views, self.stopping.shared_variance)


def overtaking(differences: NDArray[np.float64], max_views: int, shared_variance: float) -> NDArray[np.float64]:
    """Return the probabilities that the means over all views are not positive.

    Args:
        differences: ``(views, n)`` paired differences under the views so far, nan where missing.
        max_views: number of all views.
        shared_variance: degrees of freedom that the mean of the ``n`` variances counts for.

    Returns:
        ``(n,)`` probabilities: 1 with a single view; 0 without any, as a missing difference will stay missing.
    """
    known = ~np.isnan(differences)
    counts = known.sum(0)
    values = np.where(known, differences, 0)
    means = values.sum(0) / np.maximum(counts, 1)
    squares = np.where(known, values - means, 0)
    squares = (squares**2).sum(0)
    freedom = np.maximum(counts - 1, 0)
    shared = squares.sum() / max(freedom.sum(), 1)
    total = freedom + shared_variance
    variances = (squares + shared_variance * shared) / np.maximum(total, 1)
    errors = np.sqrt(variances / np.maximum(counts, 1) * np.maximum(1 - counts / max_views, 0))
    # Without any spread the remaining views are predicted to say the same; an exact tie stays as it is ordered.
    certain = np.where(means >= 0, 0.0, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        chance = np.where(errors > 0, student.sf(means / errors, np.maximum(total, 1)), certain)
    return np.where(counts == 0, 0.0, np.where(counts == 1, 1.0, chance))
