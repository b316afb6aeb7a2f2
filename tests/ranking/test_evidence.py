"""Evidence: put together by test input, and kept on disk through every kind of interruption."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_arc.arc import Candidate, CandidatePool, Episode, Pair, PairKey, Task, leave_one_out
from lightning_arc.inference.journal import Journal, read_journal
from lightning_arc.ranking.records import (
    Choice,
    ScoringRequest,
    ViewScores,
    decode_scores,
    encode_scores,
    merge_records,
    no_answer,
)
from lightning_arc.ranking.scores import CandidateScores, counted, gather

KEY = PairKey("t", "test", 0)


def grid(colour: int) -> np.ndarray:
    return np.full((1, 2), colour, np.int8)


def records(n: int = 3) -> list[ViewScores]:
    return [ViewScores(KEY, view, [0.5, math.nan], [-1.0, -2.0 - view], 10, 20, 0.25) for view in range(n)]


def journal(path: Path, signature: str) -> Journal[ViewScores]:
    return Journal(path, signature, encode_scores, decode_scores)


def read(path: Path, signature: str) -> tuple[int, list[ViewScores]]:
    return read_journal(path, signature, decode_scores)


def written(path: Path, signature: str = "s", n: int = 3) -> bytes:
    log = journal(path, signature)
    for record in records(n):
        log.append(record)
    log.close()
    return path.read_bytes()


def test_a_log_that_was_cut_anywhere_goes_on_from_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "evidence-0.jsonl"
    whole = written(path)
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        log = journal(path, "s")
        kept = max(sum(end <= cut for end in ends) - 1, 0)
        assert [r.view for r in log.records] == list(range(kept))
        for record in records()[kept:]:
            log.append(record)
        log.close()
        assert path.read_bytes() == whole


def test_what_is_read_is_what_was_appended(tmp_path: Path) -> None:
    written(tmp_path / "e.jsonl")
    for found, record in zip(read(tmp_path / "e.jsonl", "s")[1], records(), strict=True):
        assert found.key == record.key and isinstance(found.key, PairKey)
        assert (found.view, found.prefix_tokens, found.branch_tokens, found.seconds) == (record.view, 10, 20, 0.25)
        assert np.array_equal(found.log_odds, record.log_odds, equal_nan=True)
        assert np.array_equal(found.log_likelihood, record.log_likelihood, equal_nan=True)


def test_a_log_is_json_that_any_reader_takes(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    log = journal(path, "s")
    log.append(ViewScores(KEY, 0, [math.inf, -math.inf, math.nan], [0.0, 0.0, 0.0]))
    log.close()
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_a_record_is_on_disk_before_the_next_is_made(tmp_path: Path) -> None:
    log = journal(tmp_path / "e.jsonl", "s")
    for n, record in enumerate(records(), 1):
        log.append(record)
        assert len(read(tmp_path / "e.jsonl", "s")[1]) == n
    log.close()


def test_a_log_of_another_model_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    written(path, "one")
    assert read(path, "two") == (0, [])
    assert journal(path, "two").records == []
    assert read(path, "one") == (0, [])


@pytest.mark.parametrize(
    "line",
    (
        b"",
        b"\0\0\0\0",
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        b"[]",
        b'{"key": ["t", "test", 0]}',
        b'{"key": ["t", "test"], "view": 1, "log_odds": [], "log_likelihood": []}',
        b'{"key": ["t", "test", 0], "view": 1, "log_odds": ["a"], "log_likelihood": [1], "prefix_tokens": 0, '
        b'"branch_tokens": 0, "seconds": 0}',
        b'{"key": ["t", "test", 0], "view": Infinity, "log_odds": [], "log_likelihood": [], "prefix_tokens": 0, '
        b'"branch_tokens": 0, "seconds": 0}',
        b'{"signature": "other"}',
    ),
    ids=range(11),
)
def test_a_damaged_line_costs_no_other(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "e.jsonl"
    lines = written(path).splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], line + b"\n", *lines[2:]]))
    log = journal(path, "s")
    assert [r.view for r in log.records] == [0, 1, 2]
    log.close()


@given(damage=st.binary(max_size=200))
def test_no_bytes_in_a_log_break_it(tmp_path_factory: pytest.TempPathFactory, damage: bytes) -> None:
    path = tmp_path_factory.mktemp("log") / "e.jsonl"
    path.write_bytes(damage)
    assert journal(path, "s").records == []
    path.write_bytes(written(path) + damage)
    log = journal(path, "s")
    assert len(log.records) == 3
    log.append(records(4)[3])
    log.close()
    assert [r.view for r in read(path, "s")[1]] == [0, 1, 2, 3]


@pytest.fixture
def queries() -> dict[PairKey, Episode]:
    tests = (Pair(grid(3), grid(2)), Pair(grid(3), None), Pair(grid(3), grid(9)))
    tasks = Task("t", (Pair(grid(1), grid(2)),), tests), Task("u", (Pair(grid(1), grid(2)),), tests[:1])
    return {e.key: e for task in tasks for e in leave_one_out(task) if e.key != PairKey("u", "train", 0)}


@pytest.fixture
def pool() -> CandidatePool:
    pool = CandidatePool()
    for i in range(3):
        pool.add(PairKey("t", "test", i), Candidate(grid(1)))
        pool.add(PairKey("t", "test", i), Candidate(grid(2), votes=5))
    return pool


def test_every_query_has_its_evidence_whether_it_was_judged_or_not(
    queries: dict[PairKey, Episode], pool: CandidatePool
) -> None:
    pool.add(PairKey("t", "train", 0), Candidate(grid(2)))
    pool.add(PairKey("u", "train", 0), Candidate(grid(2)))  # is no query
    left_out, *evidence = gather(queries, pool, reversed(records()))
    assert (str(left_out.key), left_out.correct, len(left_out.records)) == ("t/train[0]", [True], 0)
    assert [str(e.key) for e in evidence] == ["t/test[0]", "t/test[1]", "t/test[2]", "u/test[0]"]
    assert [e.log_odds.shape for e in evidence] == [(3, 2), (0, 2), (0, 2), (0, 0)]
    assert [e.correct for e in evidence] == [[False, True], None, [False, False], []]
    assert [e.solvable for e in evidence] == [True, False, False, False]
    assert evidence[0].log_likelihood[:, 1].tolist() == [-2, -3, -4]  # in the order of views
    assert evidence[0].cost() == evidence[0].cost(["verify"]) == (0.75, 30, 60)
    assert evidence[0].cost(["select"]) == (0, 0, 0)
    assert evidence[0].votes.tolist() == [1, 5]


def test_the_first_record_of_a_view_counts_and_misfits_do_not(
    queries: dict[PairKey, Episode], pool: CandidatePool
) -> None:
    again = ViewScores(KEY, 0, [9.0, 9.0], [9.0, 9.0], 1000)
    misfit = ViewScores(KEY, 7, [9.0], [9.0], 1000)
    unknown = ViewScores(PairKey("v", "test", 0), 0, [9.0, 9.0], [9.0, 9.0], 1000)
    one, two = (gather(queries, pool, recorded) for recorded in (records(), [*records(), again, misfit, unknown]))
    for e, f in zip(one, two, strict=True):
        assert np.array_equal(e.log_odds, f.log_odds, equal_nan=True)
        assert e.cost() == f.cost()


def three() -> CandidateScores:
    return CandidateScores(KEY, tuple(Candidate(grid(i)) for i in range(3)))


FLOATS = st.one_of(st.just(math.nan), st.floats(allow_nan=False, allow_infinity=False))


@given(data=st.data())
def test_every_record_comes_back_from_json_as_it_was(data: st.DataObject) -> None:
    values = st.lists(FLOATS, min_size=3, max_size=3)
    order = st.permutations(range(3)).map(tuple)
    choice = st.builds(Choice, order, values.map(tuple))
    seconds = st.integers(0, 1000).map(lambda n: n / 8)
    whole = st.integers(0, 10**6)
    places = st.none() | st.sets(st.integers(0, 2)).map(tuple)
    choices = st.lists(choice, max_size=3).map(tuple)
    drawn = st.builds(ViewScores, st.just(KEY), whole, values, values, whole, whole, seconds, whole, places, choices)
    record = replace(data.draw(drawn), mismatches=data.draw(st.just(()) | values.map(tuple)))
    back = decode_scores(json.loads(json.dumps(encode_scores(record), allow_nan=False)))
    assert repr(back) == repr(record)


def test_mismatches_are_merged_and_a_record_without_them_counts_as_unknown() -> None:
    one = ViewScores(KEY, 0, [1.0, 2.0, math.nan], [0.0] * 3, candidates=(0, 1), mismatches=(3.0, 4.0, math.nan))
    two = ViewScores(KEY, 0, [math.nan, 5.0, 6.0], [0.0] * 3, candidates=(1, 2), mismatches=(math.nan, 7.0, 8.0))
    old = ViewScores(KEY, 1, [1.0, 2.0, 3.0], [0.0] * 3)
    known = three().with_records([one, two, old])
    np.testing.assert_array_equal(known.mismatches, [[3.0, 4.0, 8.0], [math.nan] * 3])
    assert not three().take(ViewScores(KEY, 0, [1.0] * 3, [1.0] * 3, mismatches=(1.0,)))


def test_a_record_of_an_earlier_version_is_of_one_model_and_all_candidates() -> None:
    old = encode_scores(records(1)[0])
    old = {name: old[name] for name in old if name not in ("member", "candidates", "selections", "mismatches")}
    old["lesson_tokens"] = old.pop("test_time_tokens") + 7
    record = decode_scores(old)
    assert (record.member, record.candidates, record.selections, record.test_time_tokens) == (0, None, (), 7)
    assert record.answers(ScoringRequest(KEY, 0, (0, 1)))


def test_a_view_may_judge_some_candidates_and_later_the_others() -> None:
    evidence, nan = three(), math.nan
    first = ViewScores(KEY, 0, [1.0, nan, nan], [-1.0, nan, nan], 10, 5, 1.0, candidates=(0,))
    rest = ViewScores(KEY, 0, [9.0, 2.0, nan], [-9.0, -2.0, nan], 10, 10, 1.0, candidates=(1, 2))
    assert evidence.take(first) and evidence.take(rest)
    assert not evidence.take(rest) and not evidence.take(first)
    assert np.array_equal(evidence.log_odds, [[1, 2, nan]], equal_nan=True)
    assert np.array_equal(evidence.log_likelihood, [[-1, -2, nan]], equal_nan=True)
    assert evidence.cost() == (2.0, 20, 15)
    assert evidence.views.tolist() == [1, 1, 0]
    (record,) = evidence.records
    assert record.answers(ScoringRequest(KEY, 0, (0, 1, 2))) and not record.answers(ScoringRequest(KEY, 1, (0,)))
    assert first.answers(ScoringRequest(KEY, 0, (0,))) and not first.answers(ScoringRequest(KEY, 0, (0, 1)))


def test_members_of_an_ensemble_are_averaged_by_their_weights() -> None:
    evidence = three()
    for member, row in enumerate([[0.0, 2.0, math.nan], [4.0, 0.0, 1.0]]):
        evidence.take(ViewScores(KEY, 0, row, row, member=member))
    assert np.array_equal(evidence.log_odds, [[2, 1, math.nan]], equal_nan=True)
    assert np.array_equal(evidence.weighted([3, 1]).log_odds, [[1, 1.5, math.nan]], equal_nan=True)
    assert np.array_equal(evidence.weighted([1]).log_odds, [[0, 2, math.nan]], equal_nan=True)
    assert np.array_equal(evidence.weighted([0, 1]).log_likelihood, [[4, 0, math.nan]], equal_nan=True)


def test_selections_stand_beside_verdicts_of_the_same_view() -> None:
    evidence = three()
    evidence.take(ViewScores(KEY, 0, [1.0] * 3, [1.0] * 3, 5))
    choices = (Choice((2, 0), (-0.1, -2.0)), Choice((0, 2), (math.nan, math.nan)))
    evidence.take(ViewScores(KEY, 0, [math.nan] * 3, [math.nan] * 3, 7, selections=choices))
    assert [(view, choice.order) for view, _, choice in evidence.selections] == [(0, (2, 0))]
    assert evidence.log_odds.tolist() == [[1, 1, 1]]
    assert (evidence.cost(["verify"])[1], evidence.cost(["select"])[1]) == (5, 7)
    assert evidence.records[0].answers(ScoringRequest(KEY, 0, selections=((0, 2), (2, 0))))
    assert not evidence.records[0].answers(ScoringRequest(KEY, 0, selections=((0, 1),)))
    for misfit in (Choice((0, 0), (0.0, 0.0)), Choice((0, 3), (0.0, 0.0)), Choice((0, 1), (0.0,)), Choice((), ())):
        assert not evidence.take(ViewScores(KEY, 5, [0.0] * 3, [0.0] * 3, selections=(misfit,)))


@pytest.mark.parametrize("content", ({"candidates": (0, 2)}, {"selections": ((0, 2), (2, 1))}))
def test_a_request_that_is_too_long_has_an_empty_answer(content: dict[str, tuple]) -> None:
    question, evidence = ScoringRequest(KEY, 3, member=1, **content), three()
    record = no_answer(question, 3, 512)
    assert not record.complete and record.max_seq_len == 512
    assert record.answers(question) and record.tokens == 0
    evidence.take(record)
    assert not evidence.views.any() and not evidence.selections
    kept = encode_scores(record)
    assert decode_scores(kept).answers(question) and decode_scores(kept).max_seq_len == 512
    del kept["max_seq_len"]  # as earlier versions wrote it
    assert decode_scores(kept).max_seq_len is None and not decode_scores(kept).complete
    answered = ViewScores(KEY, 3, [1.0] * 3, [1.0] * 3, member=1, candidates=(1,))
    assert answered.complete and merge_records(record, answered).max_seq_len == 512


def test_the_first_views_and_more_records_are_copies() -> None:
    evidence = three()
    for view in range(3):
        evidence.take(ViewScores(KEY, view, [float(view)] * 3, [0.0] * 3))
    assert evidence.first_views(2).log_odds[:, 0].tolist() == [0, 1]
    more = evidence.with_records([ViewScores(KEY, 3, [3.0] * 3, [0.0] * 3)])
    assert (len(more.log_odds), len(evidence.log_odds)) == (4, 3)


def test_a_solvers_score_is_the_likelihood_that_its_file_carries() -> None:
    evidence = CandidateScores(KEY, (Candidate(grid(0), log_likelihood=-2.5), Candidate(grid(1))))
    assert np.array_equal(evidence.solver_score, [-2.5, math.nan], equal_nan=True)


def test_test_inputs_and_demonstration_pairs_are_counted_apart() -> None:
    tests, pairs = [PairKey("a", "test", i) for i in range(2)], [PairKey("a", "train", 0)]
    assert counted(tests) == "2 test inputs"
    assert counted(tests + pairs) == "2 test inputs and 1 demonstration pair"
