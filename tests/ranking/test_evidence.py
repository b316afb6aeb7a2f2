"""Evidence: put together by test input, and kept on disk through every kind of interruption."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_arc.arc import Candidate, CandidatePool, Pair, PairKey, Task
from lightning_arc.journal import Journal, read_journal
from lightning_arc.ranking.evidence import ViewEvidence, decode_evidence, encode_evidence, gather

KEY = PairKey("t", "test", 0)


def grid(colour: int) -> np.ndarray:
    return np.full((1, 2), colour, np.int8)


def records(n: int = 3) -> list[ViewEvidence]:
    return [ViewEvidence(KEY, view, [0.5, math.nan], [-1.0, -2.0 - view], 10, 20, 0.25) for view in range(n)]


def journal(path: Path, signature: str) -> Journal[ViewEvidence]:
    return Journal(path, signature, encode_evidence, decode_evidence)


def read(path: Path, signature: str) -> tuple[int, list[ViewEvidence]]:
    return read_journal(path, signature, decode_evidence)


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
    log.append(ViewEvidence(KEY, 0, [math.inf, -math.inf, math.nan], [0.0, 0.0, 0.0]))
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
def tasks() -> dict[str, Task]:
    tests = (Pair(grid(3), grid(2)), Pair(grid(3), None), Pair(grid(3), grid(9)))
    return {"t": Task("t", (Pair(grid(1), grid(2)),), tests), "u": Task("u", (Pair(grid(1), grid(2)),), tests[:1])}


@pytest.fixture
def pool() -> CandidatePool:
    pool = CandidatePool()
    for i in range(3):
        pool.add(PairKey("t", "test", i), Candidate(grid(1)))
        pool.add(PairKey("t", "test", i), Candidate(grid(2), votes=5))
    return pool


def test_every_test_input_has_its_evidence_whether_it_was_judged_or_not(
    tasks: dict[str, Task], pool: CandidatePool
) -> None:
    evidence = gather(tasks, pool, reversed(records()))
    assert [str(e.key) for e in evidence] == ["t/test[0]", "t/test[1]", "t/test[2]", "u/test[0]"]
    assert [e.log_odds.shape for e in evidence] == [(3, 2), (0, 2), (0, 2), (0, 0)]
    assert [e.correct for e in evidence] == [[False, True], None, [False, False], []]
    assert [e.solvable for e in evidence] == [True, False, False, False]
    assert evidence[0].log_likelihood[:, 1].tolist() == [-2, -3, -4]  # in the order of views
    assert (evidence[0].prefix_tokens, evidence[0].branch_tokens, evidence[0].seconds) == (30, 60, 0.75)
    assert evidence[0].votes.tolist() == [1, 5]


def test_the_first_record_of_a_view_counts_and_misfits_do_not(tasks: dict[str, Task], pool: CandidatePool) -> None:
    again = ViewEvidence(KEY, 0, [9.0, 9.0], [9.0, 9.0], 1000)
    misfit = ViewEvidence(KEY, 7, [9.0], [9.0], 1000)
    stranger = ViewEvidence(PairKey("v", "test", 0), 0, [9.0, 9.0], [9.0, 9.0], 1000)
    one, two = (gather(tasks, pool, said) for said in (records(), [*records(), again, misfit, stranger]))
    for e, f in zip(one, two, strict=True):
        assert np.array_equal(e.log_odds, f.log_odds, equal_nan=True)
        assert e.prefix_tokens == f.prefix_tokens
