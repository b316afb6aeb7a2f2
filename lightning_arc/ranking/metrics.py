"""How often the right output is among the first candidates, with intervals, and how well that was foretold.

Knows evidence, rankers and rankings. Knows nothing of models or files.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_arc.ranking.evidence import Evidence
from lightning_arc.ranking.ranker import Ranker, Ranking

RESAMPLES = 10_000
ATTEMPTS = 2
"""Candidates of a test input that a submission holds."""


def hits(evidence: Sequence[Evidence], rankings: Sequence[Ranking], k: int) -> NDArray[np.bool_]:
    """Return whether the right output is among the first ``k``, for each solvable test input."""
    pairs = [(e, r.order) for e, r in zip(evidence, rankings, strict=True) if e.solvable]
    return np.array([any(e.correct[i] for i in order[:k]) for e, order in pairs], bool)


def file_hits(evidence: Sequence[Evidence], k: int) -> NDArray[np.bool_]:
    """Return the `hits` of the order in which the candidates' file has them."""
    return np.array([any(e.correct[:k]) for e in evidence if e.solvable], bool)


def reciprocal_ranks(evidence: Sequence[Evidence], rankings: Sequence[Ranking]) -> NDArray[np.float64]:
    """Return one over the right output's rank, for each solvable test input."""
    pairs = [(e, r.order.tolist()) for e, r in zip(evidence, rankings, strict=True) if e.solvable]
    return np.array([1 / (1 + order.index(e.correct.index(True))) for e, order in pairs], float)


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


def competition_score(evidence: Sequence[Evidence], rankings: Sequence[Ranking]) -> float:
    """Return the score as ARC counts it: a point a task, shared by its test inputs, for a right attempt of two."""
    right = {
        e.key: bool(e.correct) and any(e.correct[i] for i in r.order[:ATTEMPTS]) for e, r in _both(evidence, rankings)
    }
    return _by_task(evidence, [float(right[e.key]) for e in evidence])


def expected_score(evidence: Sequence[Evidence], rankings: Sequence[Ranking]) -> float:
    """Return the `competition_score` that is to be expected: the sum of the chosen candidates' ``p_correct``."""
    chosen = [np.nansum(r.p_correct[r.order[:ATTEMPTS]]) for r in rankings]
    return _by_task(evidence, [min(float(p), 1.0) for p in chosen])


def verdict_metrics(evidence: Sequence[Evidence], rankings: Sequence[Ranking]) -> dict[str, float | None]:
    """Return ``auroc`` and ``ece`` of ``p_correct`` over all candidates whose rightness is known.

    The calibration error has fifteen bins of one width; both are ``None`` where there is nothing to compute them from.
    """
    known = [(r.p_correct, e.correct) for e, r in _both(evidence, rankings) if e.correct is not None]
    p = np.concatenate([np.zeros(0), *(p for p, _ in known)])
    right = np.concatenate([np.zeros(0, bool), *(np.array(correct, bool) for _, correct in known)])
    p, right = p[~np.isnan(p)], right[~np.isnan(p)]
    if not len(p):
        return {"auroc": None, "ece": None}
    # Imported here: all else in this folder does without torch.
    import torch
    from torchmetrics.functional.classification import binary_auroc, binary_calibration_error

    predicted, target = torch.from_numpy(np.clip(p, 0, 1)), torch.from_numpy(right.astype(np.int64))
    both = bool(right.any() and not right.all())
    return {
        "auroc": float(binary_auroc(predicted, target)) if both else None,
        "ece": float(binary_calibration_error(predicted, target, n_bins=15, norm="l1")),
    }


def score_methods(evidence: Sequence[Evidence], rankers: Mapping[str, Ranker], chosen: str) -> dict[str, Any]:
    """Return what ``metrics.json`` holds.

    Args:
        evidence: one per test input.
        rankers: by the name of the method.
        chosen: the method that the submission follows.

    Returns:
        A dict with ``n_tests``, ``n_solvable``, ``chosen`` and ``methods``. Of each method ``top1`` and ``top2`` with
        their intervals ``…_ci``, ``mrr``, ``auroc``, ``ece``, ``score`` (as the competition counts it, over all tasks;
        all of these null where outputs are unknown) and ``expected_score``, ``seconds``, ``prefix_tokens`` and
        ``branch_tokens``. ``top1_minus_vote``, ``top2_minus_vote``, ``top1_minus_file`` and ``top2_minus_file`` are
        paired differences from voting, where it is among the methods, and from the order of the candidates' file, with
        their intervals.
    """
    known = any(e.correct is not None for e in evidence)
    tasks = [e.key.task_id for e in evidence if e.solvable]
    rankings = {name: [ranker.rank(e) for e in evidence] for name, ranker in rankers.items()}
    methods = {}
    for name, ranked in rankings.items():
        entry: dict[str, Any] = {}
        for k in (1, 2):
            right = hits(evidence, ranked, k).astype(float)
            entry |= _mean(f"top{k}", right, tasks)
            if name != "vote" and "vote" in rankings:
                entry |= _mean(f"top{k}_minus_vote", right - hits(evidence, rankings["vote"], k), tasks)
            entry |= _mean(f"top{k}_minus_file", right - file_hits(evidence, k), tasks)
        reciprocal = reciprocal_ranks(evidence, ranked)
        entry["mrr"] = float(reciprocal.mean()) if len(reciprocal) else None
        entry |= verdict_metrics(evidence, ranked)
        entry["score"] = competition_score(evidence, ranked) if known else None
        entry["expected_score"] = expected_score(evidence, ranked)
        costs = [e.cost(rankers[name].kinds) for e in evidence]
        entry["seconds"] = round(sum(cost[0] for cost in costs), 3)
        entry["prefix_tokens"] = sum(cost[1] for cost in costs)
        entry["branch_tokens"] = sum(cost[2] for cost in costs)
        methods[name] = entry
    n_solvable = len(tasks) if known else None
    return {"n_tests": len(evidence), "n_solvable": n_solvable, "methods": methods, "chosen": chosen}


def accuracy_by_views(
    evidence: Sequence[Evidence], ranker: Ranker, views: Iterable[int] = (1, 2, 4, 8, 16, 32, 64)
) -> list[dict[str, Any]]:
    """Return accuracy against compute: what ranking by the first views alone gives.

    Args:
        evidence: one per test input.
        ranker: the method.
        views: numbers of views; more than there are give no further point.

    Returns:
        A dict for each number with ``views``, ``top1``, ``top2``, their intervals ``…_ci`` and ``tokens``.
    """
    most = max((record.view + 1 for e in evidence for record in e.records), default=0)
    tasks = [e.key.task_id for e in evidence if e.solvable]
    curve = []
    for n in sorted({min(n, most) for n in views} - {0}):
        first = [e.first_views(n) for e in evidence]
        ranked = [ranker.rank(e) for e in first]
        point: dict[str, Any] = {"views": n}
        for k in (1, 2):
            point |= _mean(f"top{k}", hits(evidence, ranked, k).astype(float), tasks)
        curve.append(point | {"tokens": sum(sum(e.cost(ranker.kinds)[1:]) for e in first)})
    return curve


def _mean(name: str, values: NDArray[np.float64], tasks: Sequence[str]) -> dict[str, Any]:
    if not len(values):
        return {name: None, f"{name}_ci": None}
    return {name: float(values.mean()), f"{name}_ci": list(bootstrap_interval(values, tasks))}


def _by_task(evidence: Sequence[Evidence], values: Sequence[float]) -> float:
    points: dict[str, list[float]] = {}
    for e, value in zip(evidence, values, strict=True):
        points.setdefault(e.key.task_id, []).append(value)
    return float(sum(np.mean(shared) for shared in points.values()))


def _both(evidence: Sequence[Evidence], rankings: Sequence[Ranking]) -> list[tuple[Evidence, Ranking]]:
    return list(zip(evidence, rankings, strict=True))
