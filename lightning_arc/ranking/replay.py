"""Replay: recorded evidence answers a scheduler's requests, which shows the effect of other settings."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning_arc.ranking.rankers import Ranker
from lightning_arc.ranking.records import SCORES, ScoringRequest, ViewScores, no_answer
from lightning_arc.ranking.scheduler import RankingScheduler
from lightning_arc.ranking.scores import CandidateScores
from lightning_arc.ranking.stopping import StoppingConfig


def replay(
    recorded: Sequence[CandidateScores], ranker: Ranker, stopping: StoppingConfig, step: int = 1
) -> RankingScheduler:
    """Run a scheduler to its end on recorded evidence.

    Args:
        recorded: evidence of every test input, with as many views as may be asked.
        ranker: says what to ask, and orders.
        stopping: when requests end.
        step: requests of a step.

    Returns:
        The scheduler, with all answers that it asked for.
    """
    known = {e.key: e for e in recorded}
    fresh = [CandidateScores(e.key, e.candidates, e.correct) for e in recorded]
    scheduler = RankingScheduler(fresh, ranker, stopping, cost=lambda q: answer(known[q.key], q).tokens)
    run(scheduler, lambda request: answer(known[request.key], request), step)
    return scheduler


def run(
    scheduler: RankingScheduler, respond: Callable[[ScoringRequest], ViewScores], step: int = 1
) -> list[ScoringRequest]:
    """Answer a scheduler's requests until it asks no more; return them in their order."""
    answered: list[ScoringRequest] = []
    while (requests := scheduler.next(step)) is not None:
        answered += requests
        for request in requests:
            scheduler.take(respond(request))
    return answered


def answer(recorded: CandidateScores, request: ScoringRequest) -> ViewScores:
    """Answer a request from records; tokens and seconds of branches are in proportion to the part that is asked."""
    found = next((record for record in recorded.records if record.id == request.id), None)
    n = len(recorded.candidates)
    if found is None:
        return no_answer(request, n)
    if request.selections:
        kept = {choice.order: choice for choice in found.selections}
        unanswered = no_answer(request, n).selections
        choices = tuple(kept.get(order, nothing) for order, nothing in zip(request.selections, unanswered, strict=True))
        return _part(found, len(request.selections) / len(found.selections), selections=choices)
    requested = set(request.candidates)
    values = {
        name: [value if i in requested else math.nan for i, value in enumerate(found.values(name))] for name in SCORES
    }
    scored = set(range(n) if found.candidates is None else found.candidates)
    share = len(requested & scored) / max(len(scored), 1)
    return _part(found, share, candidates=request.candidates, **values)


def _part(record: ViewScores, share: float, **changes: Any) -> ViewScores:
    branches = round(share * record.branch_tokens)
    seconds = record.seconds * (record.prefix_tokens + branches) / max(record.tokens, 1)
    return replace(record, branch_tokens=branches, seconds=seconds, **changes)


@dataclass(frozen=True)
class Agreement:
    """What stopping early costs and saves.

    Args:
        chosen: share of test inputs with the same chosen candidates as all views give.
        correct: share of test inputs for which both or neither choose the right output; nan where none is known.
        cost: tokens, as a share of those of all views; nan where nothing was answered.
        views: mean number of views asked per test input.
    """

    chosen: float
    correct: float
    cost: float
    views: float


def compare(recorded: Sequence[CandidateScores], ranker: Ranker, stopping: StoppingConfig) -> Agreement:
    """Compare stopping early with asking about all candidates under all views.

    Test inputs without candidates are left out.
    """
    recorded = [e.first_views(stopping.max_views) for e in recorded if e.candidates]
    scheduler = replay(recorded, ranker, stopping)
    whole = [ranker.rank(e).order[: stopping.places].tolist() for e in recorded]
    early = [ranking.order[: stopping.places].tolist() for ranking in scheduler.rankings()]
    same = [set(one) == set(other) for one, other in zip(whole, early, strict=True)]
    right = [
        e.any_right(one) == e.any_right(other)
        for e, one, other in zip(recorded, whole, early, strict=True)
        if e.correct is not None
    ]
    everything = sum(sum(e.cost(ranker.kinds)[1:]) for e in recorded)
    views = [len({record.view for record in e.records}) for e in scheduler.evidence]
    return Agreement(
        sum(same) / len(same),
        sum(right) / len(right) if right else math.nan,
        scheduler.spent / everything if everything else math.nan,
        sum(views) / len(views),
    )
