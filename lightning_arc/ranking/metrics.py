"""How often the right output is among the first candidates, with intervals.

Knows evidence and rankings. Knows nothing of models or files.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_arc.ranking.evidence import Evidence
from lightning_arc.ranking.rankers import Ranking

RESAMPLES = 10_000


def hits(evidence: Sequence[Evidence], rankings: Sequence[Ranking], k: int) -> NDArray[np.bool_]:
    """Return whether the right output is among the first ``k``, for each solvable test input."""
    pairs = [(e, r) for e, r in zip(evidence, rankings, strict=True) if e.solvable]
    return np.array([any(e.correct[i] for i in r.order[:k]) for e, r in pairs], bool)


def bootstrap_interval(
    values: NDArray[np.floating], groups: Sequence[str], level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return a bootstrap interval of a mean, resampling whole groups (Efron and Tibshirani, 1993).

    Args:
        values: ``(n,)`` a value per test input.
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


def score_methods(
    evidence: Sequence[Evidence], rankings: Mapping[str, Sequence[Ranking]], chosen: str
) -> dict[str, Any]:
    """Return what ``metrics.json`` holds.

    Args:
        evidence: one per test input.
        rankings: by method, one per test input.
        chosen: the method that the submission follows.

    Returns:
        A dict with ``n_tests``, ``n_solvable`` and per method ``top1``, ``top1_ci``, ``top2``, ``top2_ci`` (null where
        no output is known or none is solvable), ``seconds``, ``prefix_tokens`` and ``branch_tokens``; where ``vote``
        is among the methods, the others have ``top1_minus_vote`` and ``top2_minus_vote`` too, paired differences with
        their intervals ``…_ci``.
    """
    known = any(e.correct is not None for e in evidence)
    solvable = [e for e in evidence if e.solvable]
    tasks = [e.key.task_id for e in solvable]
    methods = {}
    for name, ranked in rankings.items():
        asks = name != "vote"
        entry: dict[str, Any] = {}
        for k in (1, 2):
            right = hits(evidence, ranked, k).astype(float)
            entry[f"top{k}"] = float(right.mean()) if len(right) else None
            entry[f"top{k}_ci"] = list(bootstrap_interval(right, tasks)) if len(right) else None
            if asks and "vote" in rankings:
                gain = right - hits(evidence, rankings["vote"], k)
                entry[f"top{k}_minus_vote"] = float(gain.mean()) if len(gain) else None
                entry[f"top{k}_minus_vote_ci"] = list(bootstrap_interval(gain, tasks)) if len(gain) else None
        entry["seconds"] = round(sum(e.seconds for e in evidence), 3) if asks else 0.0
        entry["prefix_tokens"] = sum(e.prefix_tokens for e in evidence) if asks else 0
        entry["branch_tokens"] = sum(e.branch_tokens for e in evidence) if asks else 0
        methods[name] = entry
    return {
        "n_tests": len(evidence),
        "n_solvable": len(solvable) if known else None,
        "methods": methods,
        "chosen": chosen,
    }
