"""Rankers: from evidence about candidates to their order."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightning_arc.errors import DataError
from lightning_arc.ranking.calibration import Calibration
from lightning_arc.ranking.means import paired_means, standard_errors
from lightning_arc.ranking.rankers.ranker import Ranker, Ranking
from lightning_arc.ranking.records import RequestKind, ScoringRequest
from lightning_arc.ranking.scores import CandidateScores


class MajorityVote(Ranker):
    """Orders by votes, then input order: the baseline that asks no model. ``p_correct`` is the share of votes."""

    name = "vote"
    unit = "votes"

    def rank(self, evidence: CandidateScores) -> Ranking:
        votes = evidence.votes.astype(float)
        ranking = self._ranking(evidence, np.log(np.maximum(votes, 0.5)))
        return replace(ranking, score=votes)


class PointwiseRanker(Ranker):
    """A ranker for which the model scores all live candidates under each view: their likelihoods and verdicts."""

    kinds: tuple[RequestKind, ...] = ("verify",)

    def ask(self, evidence: CandidateScores, live: Sequence[int], view: int) -> tuple[ScoringRequest, ...]:
        return (ScoringRequest(evidence.key, view, tuple(live)),)


class Verifier(PointwiseRanker):
    """Orders by the mean log-odds of the verdicts over common views; ``p_correct`` is its logistic function."""

    name = "verifier"
    unit = "log-odds"

    def table(self, evidence: CandidateScores) -> NDArray[np.float64]:
        return evidence.log_odds

    def rank(self, evidence: CandidateScores) -> Ranking:
        score = paired_means(evidence.log_odds)
        return self._ranking(evidence, score, standard_errors(evidence.log_odds), log_odds=score)


class Likelihood(PointwiseRanker):
    """Orders by log-likelihood over views, a product of experts; ``p_correct`` is its softmax.

    Args:
        over_views: ``mean`` for the geometric mean of the experts, ``sum`` for their plain product, whose probabilities
            grow sharper with every view. The order is the same.
        calibration: see `Ranker`.
    """

    name = "likelihood"
    unit = "nats a grid"

    def __init__(self, over_views: Literal["mean", "sum"] = "mean", calibration: Calibration | None = None) -> None:
        super().__init__(calibration)
        self.over_views = over_views

    def table(self, evidence: CandidateScores) -> NDArray[np.float64]:
        return self._factor(evidence) * evidence.log_likelihood

    def rank(self, evidence: CandidateScores) -> Ranking:
        table = self.table(evidence)
        return self._ranking(evidence, paired_means(table), standard_errors(table))

    def _factor(self, evidence: CandidateScores) -> int:
        return len(evidence.log_likelihood) if self.over_views == "sum" else 1


class Mismatches(PointwiseRanker):
    """Orders by the mean number, over views, of tokens that are not the model's likeliest one; the fewest first."""

    name = "mismatches"
    unit = "minus tokens"

    def table(self, evidence: CandidateScores) -> NDArray[np.float64]:
        return -evidence.mismatches

    def rank(self, evidence: CandidateScores) -> Ranking:
        table = self.table(evidence)
        return self._ranking(evidence, paired_means(table), standard_errors(table))


class LogLinearRanker(PointwiseRanker):
    """Orders by a log-linear pool: a weighted sum of mean log-odds, mean log-likelihood, log-votes and more.

    ``p_correct`` is its softmax. A candidate without a value from a source gets that source's least value among the
    others; a source without any value counts as 0. ``cli.py fit-ranker`` finds the weights. If all weights of a model's
    scores are 0, no model is asked.

    Args:
        weights: of ``verifier``, ``likelihood``, ``mismatches`` (minus their mean number), ``votes``, ``solver``
            (log-likelihoods in the candidates' file) and ``order`` (minus the logarithm of the place in that file); 0
            where not named.
        none: score of "none of the candidates", which takes its share of the probability; ``null`` if there is none.
        calibration: see `Ranker`.
    """

    name = "combined"
    unit = "nats, weighted sum"
    sources = ("verifier", "likelihood", "mismatches", "votes", "solver", "order")
    models = ("verifier", "likelihood", "mismatches")

    def __init__(
        self,
        weights: dict[str, float] | None = None,
        none: float | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(calibration)
        self.weights = {"verifier": 1.0, "likelihood": 0.1, "votes": 1.0} if weights is None else weights
        self.none = none
        for source in self.weights:
            if source not in self.sources:
                raise DataError(f"ranker.weights: no source {source!r}, there are {', '.join(self.sources)}")
        self.kinds = ("verify",) if any(self.weights.get(source) for source in self.models) else ()

    def ask(self, evidence: CandidateScores, live: Sequence[int], view: int) -> tuple[ScoringRequest, ...]:
        return super().ask(evidence, live, view) if self.kinds else ()

    def table(self, evidence: CandidateScores) -> NDArray[np.float64]:
        tables = {
            "verifier": evidence.log_odds,
            "likelihood": evidence.log_likelihood,
            "mismatches": -evidence.mismatches,
        }
        parts = [self.weights[name] * table for name, table in tables.items() if self._counts(name, table)]
        shape = evidence.log_odds.shape
        total = sum(parts, np.zeros(shape)) if parts else np.full(shape, np.nan)
        others = {source: values for source, values in signals(evidence).items() if source not in self.models}
        return total + self._weighed(others, len(evidence.candidates))

    def rank(self, evidence: CandidateScores) -> Ranking:
        score = self._weighed(signals(evidence), len(evidence.candidates))
        return self._ranking(evidence, score, standard_errors(self.table(evidence)), none=self.none)

    def _weighed(self, by_source: Mapping[str, NDArray[np.float64]], n: int) -> NDArray[np.float64]:
        """Return the ``(n,)`` weighted sums of some sources' values."""
        return sum((self.weights.get(source, 0.0) * values for source, values in by_source.items()), np.zeros(n))

    def _counts(self, source: str, table: NDArray[np.float64]) -> bool:
        return bool(self.weights.get(source)) and not np.isnan(table).all()


class Ensemble(Ranker):
    """Asks several models (adapters or checkpoints on one base) the same and ranks by their averaged answers.

    Args:
        ranker: orders by the averages.
        members: how many models there are.
        weights: of each model in the averages; ``null`` for equal ones.
    """

    def __init__(self, ranker: Ranker, members: int, weights: list[float] | None = None) -> None:
        super().__init__()
        if members < 1 or (weights is not None and (len(weights) != members or min(weights) < 0 or not sum(weights))):
            raise DataError(f"ranker.weights: expected {members} of 0 and more, not all 0")
        self.ranker, self.members, self.weights = ranker, members, weights or [1.0] * members
        self.name, self.kinds, self.unit = f"{ranker.name}-ensemble", ranker.kinds, ranker.unit

    @property
    def calibrated(self) -> bool:
        return self.ranker.calibrated

    def ask(self, evidence: CandidateScores, live: Sequence[int], view: int) -> tuple[ScoringRequest, ...]:
        asked = self.ranker.ask(evidence.weighted(self.weights), live, view)
        return tuple(replace(request, member=member) for request in asked for member in range(self.members))

    def table(self, evidence: CandidateScores) -> NDArray[np.float64]:
        return self.ranker.table(evidence.weighted(self.weights))

    def rank(self, evidence: CandidateScores) -> Ranking:
        return self.ranker.rank(evidence.weighted(self.weights))


def signals(evidence: CandidateScores) -> Mapping[str, NDArray[np.float64]]:
    """Return each source's values for `LogLinearRanker`, ``(n,)`` without gaps."""
    values = {
        "verifier": paired_means(evidence.log_odds),
        "likelihood": paired_means(evidence.log_likelihood),
        "mismatches": -paired_means(evidence.mismatches),
        "votes": np.log(np.maximum(evidence.votes.astype(float), 0.5)),
        "solver": evidence.solver_score,
        "order": -np.log(1.0 + np.arange(len(evidence.candidates))),
    }
    return {source: _filled(value) for source, value in values.items()}


def _filled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    known = ~np.isnan(values)
    return np.where(known, values, values[known].min()) if known.any() else np.zeros(len(values))


RANKERS: dict[str, Ranker] = {
    ranker.name: ranker for ranker in (MajorityVote(), Verifier(), Likelihood(), Mismatches())
}
"""Rankers that need no settings and only judged candidates, by their names in ``metrics.json``."""
