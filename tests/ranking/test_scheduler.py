"""The scheduler: what it asks, of whom, how often, and that an interruption changes nothing."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_arc.arc import Candidate, PairKey
from lightning_arc.ranking.rankers import (
    ComparativeRanker,
    Ensemble,
    Likelihood,
    LogLinearRanker,
    MajorityVote,
    Ranker,
    Verifier,
)
from lightning_arc.ranking.records import Choice, ScoringRequest, ViewScores, no_answer
from lightning_arc.ranking.replay import compare, replay, run
from lightning_arc.ranking.scheduler import RankingScheduler
from lightning_arc.ranking.scores import CandidateScores
from lightning_arc.ranking.stopping import StoppingConfig

RANKERS = {
    "votes": MajorityVote(),
    "verifier": Verifier(),
    "likelihood": Likelihood(),
    "combined": LogLinearRanker(),
    "ensemble": Ensemble(Verifier(), 2),
    "pairs": ComparativeRanker("pairs", entrants=5),
    "lists": ComparativeRanker("list", halving=False, max_options=4),
}
PREFIX, BRANCH = 100, 10


def tokens(question: ScoringRequest) -> int:
    return PREFIX + BRANCH * (len(question.candidates) + len(question.selections))


class World:
    """Test inputs whose candidates have log-odds of their own, and a model that sees them with noise."""

    def __init__(self, seed: int, n_tests: int | None = None, spread: float = 2.0) -> None:
        rng = np.random.default_rng(seed)
        sizes = rng.integers(0, 8, rng.integers(1, 6) if n_tests is None else n_tests)
        self.seed = seed
        self.own = {PairKey(f"t{i}", "test", 0): rng.normal(0, spread, n) for i, n in enumerate(sizes.tolist())}

    def evidence(self) -> list[CandidateScores]:
        return [
            CandidateScores(key, tuple(Candidate(np.full((1, 2), i, np.int8), 1 + i % 3) for i in range(len(own))))
            for key, own in self.own.items()
        ]

    def answer(self, question: ScoringRequest) -> ViewScores:
        """A pure function of the question; a row's noise is the same whichever candidates are scored."""
        own = self.own[question.key]
        place = list(self.own).index(question.key)
        rng = np.random.default_rng([self.seed, place, question.view, question.member])
        values = own + rng.normal() + rng.normal(size=len(own))
        if rng.random() < 0.1:
            return no_answer(question, len(own))
        choices = tuple(Choice(o, tuple(values[list(o)].tolist())) for o in question.selections)
        scores = [x if i in question.candidates else math.nan for i, x in enumerate(values.tolist())]
        cost = tokens(question) - PREFIX
        about = {"member": question.member, "candidates": question.candidates, "selections": choices}
        return ViewScores(question.key, question.view, scores, scores, PREFIX, cost, 0.5, **about)


def scheduler_of(
    world: World, ranker: Ranker, stopping: StoppingConfig | None = None, **options: Any
) -> RankingScheduler:
    return RankingScheduler(world.evidence(), ranker, stopping or StoppingConfig(2, 6), cost=tokens, **options)


worlds = st.integers(0, 2**32 - 1).map(World)
rankers = st.sampled_from(sorted(RANKERS)).map(RANKERS.__getitem__)


def ranked(scheduler: RankingScheduler) -> list[tuple[list[int], list[float]]]:
    return [(r.order.tolist(), np.round(np.nan_to_num(r.score), 9).tolist()) for r in scheduler.rankings()]


@given(world=worlds, ranker=rankers, step=st.integers(1, 5))
def test_it_ends_with_every_test_input_settled_and_never_requests_a_settled_one(
    world: World, ranker: Ranker, step: int
) -> None:
    scheduler = scheduler_of(world, ranker)
    requests: list[ScoringRequest] = []
    while (questions := scheduler.next(step)) is not None:
        settled = dict(zip(world.own, scheduler.settled, strict=True))
        assert not any(settled[question.key] for question in questions)
        assert len(questions) <= step
        requests += questions
        for question in questions:
            scheduler.take(world.answer(question))
    assert len({question.id for question in requests}) == len(requests)
    for question in requests:
        assert question.view < 6
        places = [*question.candidates, *(place for order in question.selections for place in order)]
        assert set(places) <= set(range(len(world.own[question.key])))
    if "verify" in ranker.kinds:
        assert all(settled for settled, own in zip(scheduler.settled, world.own.values(), strict=True) if len(own))
        for key, own in world.own.items():
            views = {question.view for question in requests if question.key == key}
            assert views == set(range(len(views))) and (len(views) >= 2 or not len(own))
    assert scheduler.next(step) is None
    assert [len(r.order) for r in scheduler.rankings()] == [len(own) for own in world.own.values()]


@pytest.mark.slow
@given(
    world=worlds,
    ranker=rankers,
    step=st.integers(1, 4),
    cut=st.integers(0, 60),
    budget=st.none() | st.integers(0, 4000),
)
def test_an_interrupted_run_makes_the_requests_that_it_would_have_made(
    world: World, ranker: Ranker, step: int, cut: int, budget: int | None
) -> None:
    stopping = StoppingConfig(2, 6, max_tokens=budget)
    scheduler = scheduler_of(world, ranker, stopping)
    whole = run(scheduler, world.answer, step)
    done = [world.answer(question) for question in whole[:cut]]
    again = scheduler_of(world, ranker, stopping, done=done)
    assert run(again, world.answer, step) == whole[cut:]
    assert ranked(again) == ranked(scheduler) and again.spent == scheduler.spent


@given(world=worlds, ranker=rankers, budget=st.integers(0, 6000), step=st.integers(1, 6))
def test_the_budget_is_never_exceeded(world: World, ranker: Ranker, budget: int, step: int) -> None:
    scheduler = scheduler_of(world, ranker, StoppingConfig(2, 6, max_tokens=budget))
    requests = run(scheduler, world.answer, step)
    assert sum(world.answer(question).tokens for question in requests) <= budget
    assert len(scheduler.rankings()) == len(world.own)


def test_without_a_cost_a_budget_is_overrun_by_first_views_alone() -> None:
    world = World(3, n_tests=5)
    scheduler = RankingScheduler(world.evidence(), Verifier(), StoppingConfig(2, 6, max_tokens=700))
    requests = run(scheduler, world.answer)
    spent = [world.answer(question).tokens for question in requests]
    assert sum(spent) <= 700 + max(spent) and len(requests) >= 5


def test_the_budget_flows_to_the_least_decided_once_all_have_the_least_views() -> None:
    close, clear = np.array([1.0, 0.95, 0.9]), np.array([9.0, 8.0, -9.0])
    world = World(0, n_tests=2)
    world.own = dict(zip(world.own, (clear, close), strict=True))
    scheduler = scheduler_of(world, Verifier(), StoppingConfig(3, 12))
    task_ids = [question.key.task_id for question in run(scheduler, world.answer)]
    assert task_ids[:6] == ["t0", "t1"] * 3
    assert task_ids[6:].count("t1") > task_ids[6:].count("t0")


@pytest.mark.slow
@given(world=worlds, ranker=rankers)
def test_processes_share_the_test_inputs(world: World, ranker: Ranker) -> None:
    schedulers = [scheduler_of(world, ranker, rank=rank, world_size=2) for rank in range(2)]
    requests = [run(scheduler, world.answer) for scheduler in schedulers]
    assert not {q.key for q in requests[0]} & {q.key for q in requests[1]}
    alone = scheduler_of(world, ranker)
    run(alone, world.answer)
    expected = ranked(alone)
    assert [ranked(scheduler) for scheduler in schedulers] == [expected[0::2], expected[1::2]]


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def timed(world: World, seconds: float, each: float, done: Iterable[ViewScores] = ()) -> tuple[float, RankingScheduler]:
    """Run with questions that take so many seconds each; return how long it took."""
    clock = Clock()
    stopping = StoppingConfig(2, 50, confidence=1, max_seconds=seconds)
    scheduler = scheduler_of(world, Verifier(), stopping, clock=clock, done=done)

    def respond(question: ScoringRequest) -> ViewScores:
        clock.now += each
        return world.answer(question)

    run(scheduler, respond, 2)
    return clock.now - 100, scheduler


def test_a_run_ends_in_time_with_the_best_order_so_far() -> None:
    world = World(1, n_tests=4)
    took, scheduler = timed(world, 60, 1.0)
    assert 50 <= took <= 60
    assert [len(ranking.order) for ranking in scheduler.rankings()] == [len(own) for own in world.own.values()]
    assert scheduler.next() is None


def test_without_time_nothing_is_requested_and_there_is_an_order() -> None:
    took, scheduler = timed(World(1, n_tests=4), 0, 1.0)
    assert took == 0
    assert all(
        len(ranking.order) == len(e.candidates)
        for ranking, e in zip(scheduler.rankings(), scheduler.evidence, strict=True)
    )


def test_a_step_needs_all_answers_to_the_one_before() -> None:
    world = World(1, n_tests=3)
    scheduler = scheduler_of(world, Verifier())
    first, second = scheduler.next(2)
    assert scheduler.next(1) == []
    scheduler.take(world.answer(first))
    assert scheduler.next(1) == scheduler.next(1) == []
    scheduler.take(world.answer(second))
    assert scheduler.next(1)


@given(world=worlds)
def test_rankings_hold_all_answers_and_leave_the_scheduler_as_it_is(world: World) -> None:
    scheduler, other = (scheduler_of(world, Verifier()) for _ in range(2))

    def rank_and_answer(question: ScoringRequest) -> ViewScores:
        scheduler.rankings()
        return world.answer(question)

    assert run(scheduler, rank_and_answer, 2) == run(other, world.answer, 2)
    assert ranked(scheduler) == ranked(other)


def test_answers_that_were_not_requested_change_nothing() -> None:
    world = World(2, n_tests=2)
    scheduler, other = (scheduler_of(world, Verifier()) for _ in range(2))
    scheduler.take(ViewScores(PairKey("unknown", "test", 0), 0, [1.0], [1.0]))
    assert run(scheduler, world.answer) == run(other, world.answer) and ranked(scheduler) == ranked(other)


def test_a_record_about_fewer_candidates_is_requested_again_and_kept() -> None:
    world = World(6, n_tests=1)
    (key,) = world.own
    world.own[key] = np.array([1.0, 0.5, 0.0])
    part = world.answer(ScoringRequest(key, 0, (0,)))
    scheduler = scheduler_of(world, Verifier(), StoppingConfig(1, 1), done=[part])
    assert run(scheduler, world.answer) == [ScoringRequest(key, 0, (0, 1, 2))]
    assert scheduler.answered()[0].views.tolist() == [1, 1, 1]


@given(world=worlds, seed=st.integers(0, 100))
def test_a_replay_with_all_views_is_the_recorded_ranking(world: World, seed: int) -> None:
    everything = StoppingConfig(2, 6, confidence=1)
    scheduler = scheduler_of(world, Verifier(), everything)
    run(scheduler, world.answer)
    recorded = scheduler.answered()
    again = replay(recorded, Verifier(), everything, step=2)
    assert ranked(again) == ranked(scheduler) and again.spent == scheduler.spent
    if any(e.candidates for e in recorded) and scheduler.spent:
        found = compare(recorded, Verifier(), everything)
        assert (found.chosen, found.cost) == (1, 1)
        assert compare(recorded, Verifier(), StoppingConfig(2, 6, confidence=0.9)).cost <= 1


def recorded_world(common: bool) -> list[CandidateScores]:
    rng, made = np.random.default_rng(0), []
    for number in range(40):
        own = rng.normal(0, 3, 10)
        rows = own + rng.normal(0, 1.5, (32, 1 if common else 10)) + rng.normal(size=(32, 10))
        key = PairKey(f"{number}", "test", 0)
        evidence = CandidateScores(
            key, tuple(Candidate(np.full((1, 2), i, np.int8)) for i in range(10)), [True] + [False] * 9
        )
        for view, row in enumerate(rows.tolist()):
            evidence.take(ViewScores(key, view, row, row, 2000, 2400))
        made.append(evidence)
    return made


def test_a_third_of_the_cost_chooses_as_the_whole_does_and_views_of_their_own_cost_more() -> None:
    common, own = (compare(recorded_world(common), Verifier(), StoppingConfig()) for common in (True, False))
    assert common.chosen >= 0.95 and common.correct >= 0.95
    assert common.cost <= 1 / 3 and own.cost > common.cost
    assert own.views > common.views


def test_records_of_other_candidates_are_no_answers(scores_of: Any) -> None:
    evidence = scores_of(np.zeros((0, 2)), votes=[1, 1])
    long = ViewScores(evidence.key, 0, [1.0] * 3, [1.0] * 3)
    other = ViewScores(PairKey("another", "test", 0), 0, [1.0] * 2, [1.0] * 2)
    once = StoppingConfig(min_views=1, max_views=1, confidence=1.0)
    scheduler = RankingScheduler([evidence], Verifier(), once, done=[long, other])
    (request,) = scheduler.next(4)
    scheduler.take(ViewScores(request.key, request.view, [1.0, 2.0], [1.0, 2.0]))
    assert scheduler.next(4) is None and scheduler.rankings()[0].order.tolist() == [1, 0]
