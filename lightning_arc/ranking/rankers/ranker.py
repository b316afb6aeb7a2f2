"""The interface of rankers, which say what to ask next and order candidates.

A custom ranker is a subclass of `Ranker` that the settings name by its class path.
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
        score: ``(n,)`` scores that they are ordered by, nan where unknown.
        p_correct: ``(n,)`` estimated probability of being right.
        stderr: ``(n,)`` standard error of the score, nan where unknown.
    """

    order: NDArray[np.int64]
    score: NDArray[np.float64]
    p_correct: NDArray[np.float64]
    stderr: NDArray[np.float64]


class Ranker(ABC):
    """Ranks the candidates of test inputs, and decides what to ask about them.

    Every order depends on the evidence alone. Ties are settled by votes, then input order, so that candidates that no
    model was asked about keep the order of voting and of the solver.

    Args:
        calibration: turns log-odds into calibrated probabilities; ``null`` leaves probabilities uncalibrated.
    """

    name: str
    """Its name in ``metrics.json``."""
    kinds: tuple[RequestKind, ...] = ()
    """The kinds of requests that it asks."""
    unit: str = ""
    """The unit of its scores, such as log-odds."""
    calibration: Calibration | None = None

    def __init__(self, calibration: Calibration | None = None) -> None:
        self.calibration = calibration

    @property
    def calibrated(self) -> bool:
        """Whether ``p_correct`` is calibrated, so that its sum is an expected number of right outputs."""
        return self.calibration is not None

    def ask(self, evidence: CandidateScores, live: Sequence[int], view: int) -> tuple[ScoringRequest, ...]:
        """Return the requests under a view; an empty result ends the requests about this test input.

        Args:
            evidence: the evidence of earlier views.
            live: places of the candidates whose order is still open.
            view: number of the view; views are taken in order.
        """
        return ()

    def table(self, evidence: CandidateScores) -> NDArray[np.float64]:
        """Return each candidate's score under each view, ``(views, n)``, nan where missing.

        Only differences within a row matter: how far candidates are apart in units of the score.
        """
        return np.empty((0, len(evidence.candidates)))

    @abstractmethod
    def rank(self, evidence: CandidateScores) -> Ranking:
        """Return the order by all evidence, which may be empty."""

    def _ranking(
        self,
        evidence: CandidateScores,
        score: NDArray[np.float64],
        stderr: NDArray[np.float64] | None = None,
        log_odds: NDArray[np.float64] | None = None,
        none: float | None = None,
    ) -> Ranking:
        """Order by a score; probabilities come from ``log_odds`` if given, else from a softmax of the score."""
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
