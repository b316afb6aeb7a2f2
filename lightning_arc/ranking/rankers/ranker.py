"""What every ranker does: say what to ask next, and put candidates in order.

A ranker of somebody's own is a subclass of `Ranker` that the settings name by its class path.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from lightning_arc.ranking.calibration import Calibration
from lightning_arc.ranking.means import log_softmax, order_by
from lightning_arc.ranking.records import RequestKind, ScoringRequest
from lightning_arc.ranking.scores import CandidateScores


@dataclass(frozen=True, eq=False)
class Ranking:
    """The candidates of one test input in order; everything but ``order`` stays in input order.

    Args:
        order: ``(n,)`` places of the candidates, best first.
        score: ``(n,)`` what they are ordered by, nan where nothing is known.
        p_correct: ``(n,)`` estimated probability of being right.
        stderr: ``(n,)`` standard error of the score, nan where unknown.
    """

    order: NDArray[np.int64]
    score: NDArray[np.float64]
    p_correct: NDArray[np.float64]
    stderr: NDArray[np.float64]


class Ranker(ABC):
    """Ranks the candidates of test inputs, and knows what is to be asked about them.

    Every order depends on nothing but the evidence; ties are settled by votes, then input order: what no model was
    asked about stays as voting and the solver have it.

    Args:
        calibration: what makes probabilities of log-odds; ``null`` takes them as they are.
    """

    name: str
    """What ``metrics.json`` calls it."""
    kinds: tuple[RequestKind, ...] = ()
    """The kinds of requests that it asks."""
    unit: str = ""
    """What its scores are counted in, such as log-odds."""
    calibration: Calibration | None = None

    def __init__(self, calibration: Calibration | None = None) -> None:
        self.calibration = calibration

    @property
    def calibrated(self) -> bool:
        """Whether ``p_correct`` was fitted to come true, so that sums of it are numbers of right outputs to expect."""
        return self.calibration is not None

    def ask(self, evidence: CandidateScores, live: Sequence[int], view: int) -> tuple[ScoringRequest, ...]:
        """Return what is to be asked under a view; nothing ends the requests about this test input.

        Args:
            evidence: what is known of earlier views.
            live: places of the candidates whose order is still open.
            view: number of the view; views are taken in order.
        """
        return ()

    def table(self, evidence: CandidateScores) -> NDArray[np.float64]:
        """Return what each view says of each candidate, ``(views, n)`` with nan for nothing.

        Differences within a row tell how far candidates are apart in units of the score; a row's level tells nothing.
        """
        return np.empty((0, len(evidence.candidates)))

    @abstractmethod
    def rank(self, evidence: CandidateScores) -> Ranking:
        """Return the order by all that is known, which may be nothing."""

    def _ranking(
        self,
        evidence: CandidateScores,
        score: NDArray[np.float64],
        stderr: NDArray[np.float64] | None = None,
        log_odds: NDArray[np.float64] | None = None,
        none: float | None = None,
    ) -> Ranking:
        """Order by a score; probabilities are of given log-odds, or of a choice by the score."""
        if log_odds is None:
            log_p = log_softmax(score, none)
            p_correct = np.exp(log_p) if self.calibration is None else self.calibration(logits(log_p))
        else:
            p_correct = expit(log_odds) if self.calibration is None else self.calibration(log_odds)
        order = order_by(score, evidence.votes)
        return Ranking(order, score, p_correct, np.full(len(score), np.nan) if stderr is None else stderr)


def logits(log_p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log-odds of log-probabilities."""
    with np.errstate(divide="ignore"):
        return log_p - np.log(-np.expm1(np.minimum(log_p, 0)))
