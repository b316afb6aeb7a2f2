"""Evidence: what a model said about the candidates of a test input under each view.

Knows candidates and numbers. Knows nothing of torch, prompts or how evidence is made.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_arc.arc import Candidate, CandidatePool, PairKey, Task, same_grid


@dataclass(frozen=True)
class ViewEvidence:
    """What was said about all ``n`` candidates of a test input under one view.

    Args:
        key: the test input.
        view: number of the view.
        log_odds: ``n`` log-odds that a candidate is right, nan where it was not judged.
        log_likelihood: ``n`` log-probabilities of writing it, nan where it was not scored.
        prefix_tokens: tokens of the shared prefix.
        branch_tokens: tokens of all branches.
        seconds: time the model took.
    """

    key: PairKey
    view: int
    log_odds: list[float]
    log_likelihood: list[float]
    prefix_tokens: int = 0
    branch_tokens: int = 0
    seconds: float = 0.0


@dataclass(eq=False)
class Evidence:
    """All that is known about the candidates of one test input.

    Args:
        key: the test input.
        candidates: its ``n`` candidates, in input order.
        correct: whether each is right; ``None`` where outputs are unknown.
        log_odds: ``(views, n)``, nan where not judged.
        log_likelihood: ``(views, n)``, nan where not scored.
        prefix_tokens: tokens of all prefixes.
        branch_tokens: tokens of all branches.
        seconds: time the model took.
    """

    key: PairKey
    candidates: tuple[Candidate, ...]
    correct: list[bool] | None
    log_odds: NDArray[np.float64]
    log_likelihood: NDArray[np.float64]
    prefix_tokens: int = 0
    branch_tokens: int = 0
    seconds: float = 0.0

    @property
    def votes(self) -> NDArray[np.int64]:
        """``(n,)`` votes."""
        return np.array([c.votes for c in self.candidates], np.int64)

    @property
    def solvable(self) -> bool:
        """Whether the right output is known to be among the candidates."""
        return bool(self.correct) and any(self.correct)


def gather(tasks: Mapping[str, Task], pool: CandidatePool, said: Iterable[ViewEvidence]) -> list[Evidence]:
    """Put together what was said about every test input, one `Evidence` for each, candidates or not.

    The first record of a test input and view counts; records that do not fit the candidates are left out.
    """
    by_key: dict[PairKey, dict[int, ViewEvidence]] = {}
    for record in said:
        by_key.setdefault(record.key, {}).setdefault(record.view, record)
    gathered = []
    for task in tasks.values():
        for i, pair in enumerate(task.tests):
            key = PairKey(task.id, "test", i)
            candidates = pool[key]
            n = len(candidates)
            views = [v for _, v in sorted(by_key.get(key, {}).items()) if len(v.log_odds) == len(v.log_likelihood) == n]
            gathered.append(
                Evidence(
                    key,
                    candidates,
                    None if pair.output is None else [same_grid(c.grid, pair.output) for c in candidates],
                    np.array([v.log_odds for v in views], float).reshape(len(views), n),
                    np.array([v.log_likelihood for v in views], float).reshape(len(views), n),
                    sum(v.prefix_tokens for v in views),
                    sum(v.branch_tokens for v in views),
                    sum(v.seconds for v in views),
                )
            )
    return gathered


def encode_evidence(record: ViewEvidence) -> dict[str, Any]:
    """Return a record as JSON holds it, nan and infinity as null."""
    return {
        "key": list(record.key),
        "view": record.view,
        "log_odds": _finite(record.log_odds),
        "log_likelihood": _finite(record.log_likelihood),
        "prefix_tokens": record.prefix_tokens,
        "branch_tokens": record.branch_tokens,
        "seconds": round(record.seconds, 6),
    }


def decode_evidence(value: Any) -> ViewEvidence | None:
    """Return the record that a JSON value holds, ``None`` if it holds none."""
    try:
        task_id, split, index = value["key"]
        return ViewEvidence(
            PairKey(str(task_id), str(split), int(index)),
            int(value["view"]),
            [math.nan if x is None else float(x) for x in value["log_odds"]],
            [math.nan if x is None else float(x) for x in value["log_likelihood"]],
            int(value["prefix_tokens"]),
            int(value["branch_tokens"]),
            float(value["seconds"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def _finite(values: list[float]) -> list[float | None]:
    return [x if math.isfinite(x) else None for x in values]
