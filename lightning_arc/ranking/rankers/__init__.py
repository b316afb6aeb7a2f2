"""Rankers, which order candidates. Settings name them by their paths here."""

from lightning_arc.ranking.rankers.comparative import ComparativeRanker
from lightning_arc.ranking.rankers.fitted import Fitted
from lightning_arc.ranking.rankers.pointwise import (
    RANKERS,
    Ensemble,
    Likelihood,
    LogLinearRanker,
    MajorityVote,
    Mismatches,
    PointwiseRanker,
    Verifier,
)
from lightning_arc.ranking.rankers.ranker import Ranker, Ranking

Combined = LogLinearRanker
"""The name in files that earlier versions wrote."""

__all__ = [
    "RANKERS",
    "ComparativeRanker",
    "Ensemble",
    "Fitted",
    "Likelihood",
    "LogLinearRanker",
    "MajorityVote",
    "Mismatches",
    "PointwiseRanker",
    "Ranker",
    "Ranking",
    "Verifier",
]
