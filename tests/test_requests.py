import numpy as np

from lightning_arc.arc import Candidate, PairKey
from lightning_arc.data.batch import TreeBatch
from lightning_arc.data.requests import RequestStream, group_equal
from lightning_arc.prompt.tree import IGNORE, Branch, TokenTree
from lightning_arc.ranking.rankers import Ensemble, Verifier
from lightning_arc.ranking.records import ScoringRequest, ViewScores
from lightning_arc.ranking.scheduler import RankingScheduler
from lightning_arc.ranking.scores import CandidateScores
from lightning_arc.ranking.stopping import StoppingConfig

N = 3


def inputs(n_tasks: int) -> list[CandidateScores]:
    """Two test inputs of each task."""
    candidates = tuple(Candidate(np.full((1, 1), i, np.int8)) for i in range(N))
    return [CandidateScores(PairKey(f"t{i // 2}", "test", i % 2), candidates) for i in range(2 * n_tasks)]


def tree(question: ScoringRequest) -> TokenTree:
    branches = []
    for place in question.candidates:
        kinds, weights = np.zeros(1, np.int8), np.zeros(1, np.float32)
        branches.append(Branch(np.ones(1, np.int32), np.array([IGNORE], np.int32), kinds, weights, place))
    return TokenTree(np.ones(2, np.int32), np.full(2, IGNORE, np.int32), tuple(branches))


def stream(engine: RankingScheduler, batch_size: int = 8, datasets: bool = False) -> RequestStream:
    def collate(trees, info):
        return TreeBatch.collate(trees, 0, 1, info=info)

    def about(question: ScoringRequest) -> dict:
        return {"dataset": question.key.task_id} if datasets else {}

    return RequestStream(engine, tree, collate, engine.take, lambda question: N, batch_size, about)


def answer(question: ScoringRequest, seconds: float = 0.0) -> ViewScores:
    return ViewScores(question.key, question.view, [0.0] * N, [0.0] * N, 1, 1, seconds, question.member)


def test_places_of_equal_names_come_together_in_order():
    assert group_equal(["a", "b", "a", "c", "b"]) == [[0, 2], [1, 4], [3]] and group_equal([]) == []


def test_a_batch_is_to_one_member_and_about_one_lesson_and_all_is_asked():
    stopping = StoppingConfig(min_views=2, max_views=2, confidence=1)
    engine = RankingScheduler(inputs(3), Ensemble(Verifier(), 2), stopping)
    asked = []
    for batch in stream(engine, datasets=True):
        assert len({(told["request"].member, told["dataset"]) for told in batch.info}) <= 1
        for told in batch.info:
            asked.append(told["request"].id)
            engine.take(answer(told["request"]))
    assert len(asked) == len(set(asked)) == 6 * 2 * 2


def test_without_datasets_a_batch_holds_what_was_asked_together():
    engine = RankingScheduler(inputs(3), Verifier(), StoppingConfig(min_views=1, max_views=1, confidence=1))
    sizes = []
    for batch in stream(engine, batch_size=4):
        sizes.append(len(batch.info))
        for told in batch.info:
            engine.take(answer(told["request"]))
    assert sizes == [4, 2]


def test_no_lesson_begins_when_the_time_for_it_is_gone():
    now = [0.0]
    stopping = StoppingConfig(min_views=1, max_views=9, confidence=1, max_seconds=100)
    engine = RankingScheduler(inputs(20), Verifier(), stopping, clock=lambda: now[0])
    asked, told_ahead = iter(stream(engine, batch_size=40, datasets=True)), []
    batch, datasets = next(asked), 0
    while batch is not None:
        ahead = next(asked, None)  # as Lightning takes it, before the batch is answered
        told_ahead.append(bool(batch.info) and ahead is not None and bool(ahead.info))
        datasets += bool(batch.info)
        now[0] += 30.0 * bool(batch.info)
        for told in batch.info:
            engine.take(answer(told["request"], 15.0))
        batch = ahead
    # The third ends at 90 seconds; a fourth would have ended at 120. None was begun before the one before had ended.
    assert datasets == 3 and not any(told_ahead) and engine.time_is_up(1) and engine.next() is None
    assert sum(bool(e.records) for e in engine.answered()) == 6
    assert len(engine.rankings()) == 40


def test_a_question_that_is_too_long_is_recorded_with_the_limit():
    engine, kept = RankingScheduler(inputs(1), Verifier(), StoppingConfig(min_views=1, max_views=1, confidence=1)), []

    def keep(record: ViewScores) -> None:
        engine.take(record)
        kept.append(record)

    def collate(trees, info):
        return TreeBatch.collate(trees, 0, 1, info=info)

    asked = RequestStream(engine, lambda question: None, collate, keep, lambda question: N, 8, lambda question: {}, 77)
    assert not any(batch.info for batch in asked)
    assert [(record.key, record.max_seq_len, record.complete) for record in kept] == [
        (e.key, 77, False) for e in engine.evidence
    ]
