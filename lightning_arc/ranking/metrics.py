"""Metrics of rankings: how often the right output comes first, with intervals, and how good probabilities are."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_arc.ranking.coverage import answered_views, is_judged
from lightning_arc.ranking.rankers import Ranker, Ranking
from lightning_arc.ranking.records import RequestKind
from lightning_arc.ranking.scores import CandidateScores

RESAMPLES = 10_000
AUROC_RESAMPLES = 1_000
ATTEMPTS = 2
"""Candidates of a test input that a submission holds."""


def hits(evidence: Sequence[CandidateScores], rankings: Sequence[Ranking], k: int) -> NDArray[np.bool_]:
    """Return whether the right output is among the first ``k``, for each solvable test input."""
    pairs = [(e, r.order) for e, r in zip(evidence, rankings, strict=True) if e.solvable]
    return np.array([e.any_right(order[:k]) for e, order in pairs], bool)


def file_order(evidence: CandidateScores) -> Ranking:
    """Return the order in which the candidates' file has them, which gives no scores or probabilities."""
    nothing = np.full(len(evidence.candidates), np.nan)
    return Ranking(np.arange(len(nothing)), nothing, nothing, nothing)


def reciprocal_ranks(evidence: Sequence[CandidateScores], rankings: Sequence[Ranking]) -> NDArray[np.float64]:
    """Return one over the right output's rank, for each solvable test input."""
    pairs = [(e, r.order.tolist()) for e, r in zip(evidence, rankings, strict=True) if e.solvable]
    return np.array([1 / (1 + order.index(e.right_place)) for e, order in pairs], float)


def within_aurocs(evidence: Sequence[CandidateScores], rankings: Sequence[Ranking]) -> NDArray[np.float64]:
    """Return the share of wrong candidates that score below the right one, ties half, for each solvable test input.

    Candidates without a score rank below those with one; if none has a score, the order counts. Test inputs without a
    wrong candidate are left out.
    """
    found = []
    for e, ranking in zip(evidence, rankings, strict=True):
        if e.mixed:
            score = ranking.score
            if np.isnan(score).all():
                score = -np.argsort(ranking.order).astype(float)
            score, right = np.where(np.isnan(score), -np.inf, score), np.array(e.correct, bool)
            best = score[right].max()
            found.append(float(np.mean((score[~right] < best) + 0.5 * (score[~right] == best))))
    return np.array(found, float)


def bootstrap_interval(
    values: NDArray[np.floating], groups: Sequence[str], level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return a bootstrap interval of a mean, resampling whole groups (Efron and Tibshirani, 1993).

    Args:
        values: ``(n,)`` a value per test input; of differences between two methods, this is a paired bootstrap.
        groups: ``n`` task ids; the test inputs of a task are drawn together.
        level: share of the resampled means that lies within.
        seed: of the resampling.
    """
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    sums, counts = np.bincount(group, values), np.bincount(group)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_auroc(
    score: NDArray[np.floating], right: NDArray[np.bool_], groups: Sequence[str], level: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """Return a bootstrap interval of the area under the ROC curve, resampling whole groups.

    Args:
        score: ``(n,)`` of candidates; equal ones count half.
        right: ``(n,)`` whether each is right.
        groups: ``n`` task ids; the candidates of a task are drawn together.
        level: share of the resampled areas that lies within.
        seed: of the resampling.

    Returns:
        The interval, ``None`` where all candidates are right, or all wrong.
    """
    if right.all() or not right.any():
        return None
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    _, place = np.unique(score, return_inverse=True)
    n, rng, areas = int(group.max()) + 1, np.random.default_rng(seed), []
    for _ in range(AUROC_RESAMPLES):
        weight = np.bincount(rng.integers(n, size=n), minlength=n)[group].astype(float)
        of_right, of_wrong = (np.bincount(place, weight * each, minlength=place.max() + 1) for each in (right, ~right))
        pairs = of_right.sum() * of_wrong.sum()
        if pairs:
            areas.append(float(of_right @ (of_wrong.cumsum() - of_wrong / 2) / pairs))
    low, high = np.quantile(areas, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def competition_score(evidence: Sequence[CandidateScores], rankings: Sequence[Ranking]) -> float:
    """Return the score as ARC counts it: a point a task, shared by its test inputs, for a right attempt of two."""
    right = {e.key: e.any_right(r.order[:ATTEMPTS]) for e, r in _both(evidence, rankings)}
    return _by_task(evidence, [float(right[e.key]) for e in evidence])


def expected_score(evidence: Sequence[CandidateScores], rankings: Sequence[Ranking]) -> float:
    """Return the expected `competition_score`, from the ``p_correct`` of the chosen candidates."""
    chosen = [np.nansum(r.p_correct[r.order[:ATTEMPTS]]) for r in rankings]
    return _by_task(evidence, [min(float(p), 1.0) for p in chosen])


def verdict_metrics(evidence: Sequence[CandidateScores], rankings: Sequence[Ranking]) -> dict[str, float | None]:
    """Return ``auroc`` and ``ece`` of ``p_correct`` over all candidates whose rightness is known.

    The calibration error has fifteen bins of one width; both are ``None`` where there is nothing to compute them from.
    """
    known = [(r.p_correct, e.correct) for e, r in _both(evidence, rankings) if e.correct is not None]
    p = np.concatenate([np.zeros(0), *(p for p, _ in known)])
    right = np.concatenate([np.zeros(0, bool), *(np.array(correct, bool) for _, correct in known)])
    p, right = p[~np.isnan(p)], right[~np.isnan(p)]
    if not len(p):
        return {"auroc": None, "ece": None}
    # Imported here, because nothing else in this folder needs torch.
    import torch
    from torchmetrics.functional.classification import binary_auroc, binary_calibration_error

    predicted, target = torch.from_numpy(np.clip(p, 0, 1)), torch.from_numpy(right.astype(np.int64))
    both = bool(right.any() and not right.all())
    return {
        "auroc": float(binary_auroc(predicted, target)) if both else None,
        "ece": float(binary_calibration_error(predicted, target, n_bins=15, norm="l1")),
    }


def score_methods(evidence: Sequence[CandidateScores], rankers: Mapping[str, Ranker], chosen: str) -> dict[str, Any]:
    """Return the methods' part of ``metrics.json``.

    Args:
        evidence: one per test input.
        rankers: by the name of the method.
        chosen: the method that the submission follows.

    Returns:
        A dict with ``n_tests``, ``n_solvable``, ``chosen`` and ``methods``. Each method has the figures of
        `score_rankings`, compared with voting (if it is among the methods) and with the order of the candidates' file,
        and, if it asks a model, the ``curve`` of `accuracy_by_views`. ``file_order`` has the figures of that order
        itself. A method whose model gave no answer is left out and named in ``not_asked``, except the chosen one.
    """
    known = any(e.correct is not None for e in evidence)
    n_solvable = sum(e.solvable for e in evidence) if known else None
    not_asked = [
        name
        for name, ranker in rankers.items()
        if ranker.kinds and name != chosen and not any(is_judged(e, ranker) for e in evidence)
    ]
    rankers = {name: ranker for name, ranker in rankers.items() if name not in not_asked}
    rankings = {name: [ranker.rank(e) for e in evidence] for name, ranker in rankers.items()}
    file = [file_order(e) for e in evidence]
    methods = {}
    voting = {name: rankings[name] for name in rankings if name == "vote"}
    for name, ranker in rankers.items():
        against = {"file": file} if name == "vote" else voting | {"file": file}
        methods[name] = score_rankings(evidence, rankings[name], ranker, against)
        if ranker.kinds:
            methods[name]["curve"] = accuracy_by_views(evidence, ranker)
    return {
        "n_tests": len(evidence),
        "n_solvable": n_solvable,
        "methods": methods,
        "not_asked": not_asked,
        "file_order": score_rankings(evidence, file, against=voting),
        "chosen": chosen,
    }


def score_rankings(
    evidence: Sequence[CandidateScores],
    rankings: Sequence[Ranking],
    ranker: Ranker | None = None,
    against: Mapping[str, Sequence[Ranking]] | None = None,
) -> dict[str, Any]:
    """Return how well one method ranks, and what it cost.

    Args:
        evidence: one per test input.
        rankings: of the method.
        ranker: the ranker that made them, ``None`` for the order of the file.
        against: rankings of other methods by name.

    Returns:
        A dict with `accuracies`, ``score`` (as the competition counts it, over all tasks' test inputs; null where
        outputs are unknown), ``expected_score`` (null unless the ranker's probabilities are calibrated), ``views``
        (mean number answered for a test input with candidates), ``seconds``, ``prefix_tokens``, ``branch_tokens`` and
        ``test_time_tokens`` (of test-time training, whose time is in ``seconds``). If the ranker asks a model,
        ``judged`` has the `accuracies` over only the test inputs that were judged, their ``n_tests`` and
        ``n_solvable``, and ``n_with_candidates``, the number that could have been judged.
    """
    against = against or {}
    kinds = () if ranker is None else ranker.kinds
    entry = accuracies(evidence, rankings, against)
    known = any(e.correct is not None for e in evidence)
    tests = [(e, r) for e, r in _both(evidence, rankings) if e.key.split == "test"]
    asked, orders = [e for e, _ in tests], [r for _, r in tests]
    calibrated = bool(asked) and ranker is not None and ranker.calibrated
    entry["score"] = competition_score(asked, orders) if any(e.correct is not None for e in asked) else None
    entry["expected_score"] = expected_score(asked, orders) if calibrated else None
    if ranker is not None and kinds:
        places = [i for i, e in enumerate(evidence) if is_judged(e, ranker)]
        judged = [evidence[i] for i in places]
        entry["judged"] = {
            "n_tests": len(judged),
            "n_with_candidates": sum(bool(e.candidates) for e in evidence),
            "n_solvable": sum(e.solvable for e in judged) if known else None,
            **accuracies(
                judged,
                [rankings[i] for i in places],
                {name: [others[i] for i in places] for name, others in against.items()},
            ),
        }
    answered = [answered_views(e, kinds) for e in evidence if e.candidates]
    costs = [e.cost(kinds) for e in evidence]
    return entry | {
        "views": sum(answered) / max(len(answered), 1),
        "seconds": round(sum(cost[0] for cost in costs), 3),
        "prefix_tokens": sum(cost[1] for cost in costs),
        "branch_tokens": sum(cost[2] for cost in costs),
        "test_time_tokens": sum(e.test_time_tokens(kinds) for e in evidence),
    }


def accuracies(
    evidence: Sequence[CandidateScores], rankings: Sequence[Ranking], against: Mapping[str, Sequence[Ranking]]
) -> dict[str, Any]:
    """Return how often the right output comes first, and how well probabilities separate right from wrong candidates.

    Args:
        evidence: one per test input.
        rankings: of one method.
        against: rankings of other methods by name.

    Returns:
        A dict with ``top1``, ``top2`` and ``auroc_within`` (see `within_aurocs`) with their intervals ``…_ci``,
        ``mrr``, ``auroc`` and ``ece``, all null where outputs are unknown. Against a method ``NAME``,
        ``top1_minus_NAME`` and ``top2_minus_NAME`` are paired differences, with their intervals.
    """
    tasks = [e.key.task_id for e in evidence if e.solvable]
    entry: dict[str, Any] = {}
    for k in (1, 2):
        right = hits(evidence, rankings, k).astype(float)
        entry |= _mean(f"top{k}", right, tasks)
        for name, others in against.items():
            entry |= _mean(f"top{k}_minus_{name}", right - hits(evidence, others, k), tasks)
    reciprocal = reciprocal_ranks(evidence, rankings)
    entry["mrr"] = float(reciprocal.mean()) if len(reciprocal) else None
    several = [e.key.task_id for e in evidence if e.mixed]
    entry |= _mean("auroc_within", within_aurocs(evidence, rankings), several)
    return entry | verdict_metrics(evidence, rankings)


def asked_views(evidence: Sequence[CandidateScores], kinds: Sequence[RequestKind]) -> int:
    """Return the most views under which a test input was asked requests of some kinds."""
    return max((record.view + 1 for e in evidence for record in e.records if record.id.kind in kinds), default=0)


def accuracy_by_views(
    evidence: Sequence[CandidateScores], ranker: Ranker, views: Iterable[int] = (1, 2, 4, 8, 16, 32, 64)
) -> list[dict[str, Any]]:
    """Return accuracy against compute: the accuracy of ranking by only the first views.

    Args:
        evidence: one per test input.
        ranker: the method; one that asks nothing has no curve.
        views: numbers of views; those beyond the number that was asked give no further point.

    Returns:
        A dict for each number with ``views``, ``top1``, ``top2``, their intervals ``…_ci``, ``tokens`` (including those
        of test-time training) and ``seconds``.
    """
    most = asked_views(evidence, ranker.kinds)
    tasks = [e.key.task_id for e in evidence if e.solvable]
    curve = []
    for n in sorted({min(n, most) for n in views} - {0}):
        first = [e.first_views(n) for e in evidence]
        ranked = [ranker.rank(e) for e in first]
        point: dict[str, Any] = {"views": n}
        for k in (1, 2):
            point |= _mean(f"top{k}", hits(evidence, ranked, k).astype(float), tasks)
        costs = [e.cost(ranker.kinds) for e in first]
        tokens = sum(cost[1] + cost[2] for cost in costs) + sum(e.test_time_tokens(ranker.kinds) for e in first)
        seconds = sum(cost[0] for cost in costs)
        curve.append(point | {"tokens": tokens, "seconds": round(seconds, 3)})
    return curve


def _mean(name: str, values: NDArray[np.float64], tasks: Sequence[str]) -> dict[str, Any]:
    if not len(values):
        return {name: None, f"{name}_ci": None}
    return {name: float(values.mean()), f"{name}_ci": list(bootstrap_interval(values, tasks))}


def _by_task(evidence: Sequence[CandidateScores], values: Sequence[float]) -> float:
    points: dict[str, list[float]] = {}
    for e, value in zip(evidence, values, strict=True):
        points.setdefault(e.key.task_id, []).append(value)
    return float(sum(np.mean(shared) for shared in points.values()))


def _both(evidence: Sequence[CandidateScores], rankings: Sequence[Ranking]) -> list[tuple[CandidateScores, Ranking]]:
    return list(zip(evidence, rankings, strict=True))
