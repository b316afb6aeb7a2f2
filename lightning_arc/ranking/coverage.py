"""Which test inputs a model judged, which it did not, and why."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from lightning_arc.ranking.rankers import Ranker
from lightning_arc.ranking.records import RequestKind
from lightning_arc.ranking.scheduler import RankingScheduler
from lightning_arc.ranking.scores import CandidateScores
from lightning_arc.ranking.stopping import StoppingConfig

Coverage = Literal["judged", "too_long", "not_reached", "partly_too_long", "partly_not_reached", "not_asked"]
"""How far a test input was judged: ``too_long`` and ``not_reached`` ones have no verdict at all, the ``partly_…`` ones
lack some that were due, and ``not_asked`` ones have nothing to ask about."""

NOT_REACHED = "not reached (time, tokens or an interruption ended the run)"


def is_judged(evidence: CandidateScores, ranker: Ranker) -> bool:
    """Return whether a ranking uses any answer of a model, not only votes and the file's order."""
    table = ranker.table(evidence)
    return bool(np.isfinite(table).any()) if len(table) else answered_views(evidence, ranker.kinds) > 0


def answered_views(evidence: CandidateScores, kinds: Sequence[RequestKind]) -> int:
    """Return under how many views a model answered requests of some kinds; some are too long to be asked."""
    answers: dict[int, list[float]] = {}
    for record in evidence.records:
        if record.id.kind in kinds:
            chosen = (log_p for selection in record.selections for log_p in selection.log_probs)
            answers.setdefault(record.view, []).extend((*record.log_odds, *record.log_likelihood, *chosen))
    return sum(bool(np.isfinite(values).any()) for values in answers.values())


def coverage(evidence: CandidateScores, ranker: Ranker, stopping: StoppingConfig) -> Coverage:
    """Return how far a test input was judged. If some requests were too long and others not reached, length counts.

    Args:
        evidence: all evidence about it.
        ranker: the ranker that asked.
        stopping: when its requests would have ended by themselves.
    """
    if not ranker.kinds or not evidence.candidates:
        return "not_asked"
    too_long = any(not record.complete for record in evidence.records if record.id.kind in ranker.kinds)
    judged = is_judged(evidence, ranker)
    if too_long:
        return "partly_too_long" if judged else "too_long"
    if _questions_left(evidence, ranker, stopping):
        return "partly_not_reached" if judged else "not_reached"
    return "judged" if judged else "not_asked"


def count_coverage(found: Iterable[Coverage], evidence: Sequence[CandidateScores]) -> dict[str, int | None]:
    """Return what ``metrics.json`` holds in ``not_judged``: how many test inputs lack verdicts, by reason.

    Returns:
        The number of test inputs for each `Coverage` that lacks verdicts; and ``max_seq_len``, the limit that prompts
        exceeded, ``None`` where none did or it was not recorded.
    """
    found = list(found)
    counts: dict[str, int | None] = {
        name: found.count(name) for name in ("too_long", "not_reached", "partly_too_long", "partly_not_reached")
    }
    limits = [record.max_seq_len for e in evidence for record in e.records if record.max_seq_len is not None]
    return counts | {"max_seq_len": max(limits, default=None)}


def explain(not_judged: Mapping[str, Any] | None) -> list[str]:
    """Return the sentences that say what `count_coverage` counted; none where everything was judged."""
    if not_judged is None:
        return []
    reasons = {"too_long": too_long(not_judged["max_seq_len"]), "not_reached": NOT_REACHED}
    sentences = []
    for prefix, sentence in (
        ("", "Not judged by the model, so ordered without it"),
        ("partly_", "Judged in part, other views missing"),
    ):
        counted = [(not_judged[prefix + name], reason) for name, reason in reasons.items()]
        parts = [f"{n} test input{'' if n == 1 else 's'} {reason}" for n, reason in counted if n]
        if parts:
            sentences.append(f"{sentence}: {', '.join(parts)}.")
    return sentences


def explain_placeholders(submission: Mapping[str, int], file: str = "submission.json") -> list[str]:
    """Return the sentence that says what `count_placeholders` counted; none where every attempt is a candidate."""
    n = submission["n_tests"]
    parts = [
        f"{count} of {n} test inputs {what}"
        for count, what in (
            (submission["no_candidate"], "have no candidate, [[0]] in both attempts"),
            (submission["one_candidate"], "have a single candidate, [[0]] in the second attempt"),
        )
        if count
    ]
    return [f"Placeholders in {file}: {'; '.join(parts)}."] if parts else []


def too_long(max_seq_len: int | None) -> str:
    """Return the reason why something was too long to be asked."""
    return "too long for data.max_seq_len" + ("" if max_seq_len is None else f" {max_seq_len}")


def _questions_left(evidence: CandidateScores, ranker: Ranker, stopping: StoppingConfig) -> bool:
    """Return whether a scheduler without a budget would ask requests that were not answered."""
    endless = replace(stopping, max_tokens=None, max_seconds=None)
    scheduler = RankingScheduler([evidence.first_views(0)], ranker, endless, done=evidence.records)
    return bool(scheduler.next())
