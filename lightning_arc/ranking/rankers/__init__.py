"""Rankers: what orders candidates. Settings name them by their paths here."""

from lightning_arc.ranking.rankers.fitted import Fitted
from lightning_arc.ranking.rankers.pointwise import (
    RANKERS,
    Combined,
    Ensemble,
    Judge,
    Likelihood,
    Mismatches,
    Verifier,
    Votes,
)
from lightning_arc.ranking.rankers.ranker import Ranker, Ranking
from lightning_arc.ranking.rankers.selection import Selection

__all__ = [
    "RANKERS",
    "Combined",
    "Ensemble",
    "Fitted",
    "Judge",
    "Likelihood",
    "Mismatches",
    "Ranker",
    "Ranking",
    "Selection",
    "Verifier",
    "Votes",
]
