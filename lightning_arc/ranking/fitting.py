"""Fitting the weights of a combined ranking: a choice among the candidates of each test input, or of none of them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from lightning_arc.errors import DataError
from lightning_arc.ranking.calibration import Calibration, fit_isotonic, fit_temperature
from lightning_arc.ranking.rankers import LogLinearRanker, Ranking
from lightning_arc.ranking.rankers.pointwise import signals
from lightning_arc.ranking.rankers.ranker import logits
from lightning_arc.ranking.scores import CandidateScores

PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
"""Penalties that are tried, the largest first; of equally good ones the largest is taken."""

SMALLEST = 1e-9
"""A right output counts as no less likely than this, so that a single test input does not decide."""


def fit_combined(evidence: Sequence[CandidateScores], sources: Sequence[str], l2: float = 0.01) -> LogLinearRanker:
    """Fit weights by a conditional logit (McFadden, 1974) with "none of them" as a further choice.

    Args:
        evidence: of test inputs with known outputs; those without candidates are passed over.
        sources: sources of evidence to weigh, see `LogLinearRanker`. No weight becomes negative.
        l2: penalty of the squared weights per test input, each in units of its source's standard deviation.

    Raises:
        DataError: if no right output is among the candidates.
    """
    known = [e for e in evidence if e.correct]
    if not any(e.solvable for e in known):
        raise DataError("no right output is among the candidates, so that there is nothing to fit to")
    by_query = [signals(e) for e in known]
    features = [np.stack([one[source] for source in sources], 1) for one in by_query]
    spread = np.concatenate([f - f.mean(0) for f in features]).std(0)
    levels = np.concatenate(features).mean(0)
    used = spread > 1e-9 * np.maximum(np.abs(levels), 1)  # what is constant differs by rounding
    scale, levels = np.where(used, spread, 1), np.where(used, levels, 0)
    scaled = [(f - levels) / scale for f in features]
    rights = [e.right_place if e.solvable else -1 for e in known]

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights, none = parameters[:-1], parameters[-1]
        value, slope = 0.5 * l2 * float(weights @ weights), np.append(l2 * weights, 0.0)
        for x, right in zip(scaled, rights, strict=True):
            scores = np.append(x @ weights, none)
            log_p = scores - np.logaddexp.reduce(scores)
            value -= log_p[right] / len(scaled)
            error = np.exp(log_p)
            error[right] -= 1
            slope += np.append(error[:-1] @ x, error[-1]) / len(scaled)
        return value, slope

    bounds = [(0, None if one else 0) for one in used] + [(None, None)]
    found = minimize(loss, np.zeros(len(sources) + 1), jac=True, method="L-BFGS-B", bounds=bounds)
    weights = found.x[:-1] / scale
    named = {source: float(weight) for source, weight in zip(sources, weights, strict=True)}
    return LogLinearRanker(named, none=float(found.x[-1] + levels @ weights))


def best_penalty(evidence: Sequence[CandidateScores], sources: Sequence[str], folds: int = 10, seed: int = 0) -> float:
    """Return the penalty of `PENALTIES` that gives right outputs of left-out tasks the greatest likelihood.

    Args:
        evidence: of test inputs with known outputs.
        sources: see `fit_combined`.
        folds: see `cross_validated`.
        seed: see `cross_validated`.
    """

    def loss(l2: float) -> float:
        total = 0.0
        for e, ranking in zip(evidence, cross_validated(evidence, sources, l2, folds, seed), strict=True):
            p = ranking.p_correct
            right = p[e.right_place] if e.solvable else 1 - p.sum()
            total -= np.log(max(right, SMALLEST))
        return total

    return min(PENALTIES, key=loss)


def cross_validated(
    evidence: Sequence[CandidateScores], sources: Sequence[str], l2: float = 0.01, folds: int = 10, seed: int = 0
) -> list[Ranking]:
    """Rank each test input with weights that were fitted without its task and those of its fold.

    Args:
        evidence: of test inputs with known outputs.
        sources: see `fit_combined`.
        l2: see `fit_combined`.
        folds: parts into which the tasks are divided; with as many as tasks, each is left out alone.
        seed: of the division.

    Raises:
        DataError: if there are fewer than two tasks, or nothing is left to fit to without one of the folds.
    """
    tasks = sorted({e.key.task_id for e in evidence})
    if len(tasks) < 2:
        raise DataError(f"{len(tasks)} tasks, expected two at least to leave some out")
    shuffled = np.random.default_rng(seed).permutation(len(tasks))
    fold = {tasks[i]: place % min(folds, len(tasks)) for place, i in enumerate(shuffled.tolist())}
    rankers = {
        left_out: fit_combined([e for e in evidence if fold[e.key.task_id] != left_out], sources, l2)
        for left_out in sorted(set(fold.values()))
    }
    return [rankers[fold[e.key.task_id]].rank(e) for e in evidence]


def fit_calibration(evidence: Sequence[CandidateScores], rankings: Sequence[Ranking], kind: str) -> Calibration:
    """Fit the calibration of rankings to the known right candidates.

    Args:
        evidence: of test inputs with known outputs.
        rankings: of each, by weights that were not fitted to it.
        kind: ``temperature`` or ``isotonic``.
    """
    pairs = [(r.p_correct, e.correct) for e, r in zip(evidence, rankings, strict=True) if e.correct]
    with np.errstate(divide="ignore"):
        log_odds = logits(np.log(np.concatenate([p for p, _ in pairs])))
    correct = np.concatenate([np.array(right, bool) for _, right in pairs])
    return (fit_isotonic if kind == "isotonic" else fit_temperature)(log_odds, correct)
