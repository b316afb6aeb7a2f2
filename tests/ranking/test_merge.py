"""Merging solvers: votes that add up, and the best two of several submissions."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_arc.arc import Candidate, CandidatePool, PairKey, read_submission, read_tasks
from lightning_arc.arc.grid import Grid, as_grid
from lightning_arc.cli.merge import best_two, candidates, submissions, weighted_pool
from lightning_arc.errors import DataError

KEY = PairKey("t", "test", 0)
A, B, C, NOTHING = as_grid([[1]]), as_grid([[2]]), as_grid([[3]]), as_grid([[0]])


def cells(grids: list[Grid]) -> list[int]:
    return [int(grid[0, 0]) for grid in grids]


def pool(*votes: tuple[Grid, int]) -> CandidatePool:
    made = CandidatePool()
    made.open(PairKey("empty", "test", 0))
    for grid, n in votes:
        made.add(KEY, Candidate(grid, n))
    return made


def test_a_candidate_of_several_solvers_has_the_votes_of_all_by_their_weights() -> None:
    merged = weighted_pool([pool((A, 4), (B, 1)), pool((B, 6), (C, 1))], [0.5, 2])
    assert [(int(c.grid[0, 0]), c.votes) for c in merged[KEY]] == [(1, 2), (2, 13), (3, 2)]
    assert PairKey("empty", "test", 0) in merged


def test_the_best_two_have_the_most_points() -> None:
    assert cells(best_two([(A, B), (C, B)], [1, 1])) == [1, 3]  # two points each, before a second attempt's
    assert cells(best_two([(A, B), (B, C)], [1, 1])) == [2, 1]
    assert cells(best_two([(A, B), (C, B)], [1, 3])) == [3, 2]
    assert cells(best_two([(A, B), (C, A)], [1, 1])) == [1, 3]


def test_no_attempt_has_no_points_and_the_same_attempt_twice_counts_once() -> None:
    assert cells(best_two([(NOTHING, NOTHING), (A, NOTHING)], [5, 1])) == [1]
    assert cells(best_two([(A, A), (B, C), (B, C)], [1.9, 1, 1])) == [2, 1]
    assert best_two([(NOTHING, NOTHING)], [1]) == []


@given(attempts=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=4))
def test_a_submission_merged_with_itself_is_itself(attempts: list[tuple[int, int]]) -> None:
    for first, second in attempts:
        grids = (as_grid([[first]]), as_grid([[second]]))
        expected = list(dict.fromkeys(cell for cell in (first, second) if cell))
        assert cells(best_two([grids] * 3, [1, 2, 3])) == expected


@pytest.fixture
def files(tmp_path: Path) -> Path:
    tasks = {"a": {"train": [{"input": [[1]], "output": [[1]]}], "test": [{"input": [[1]]}, {"input": [[2]]}]}}
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    for name, grids in (("one", ([[1]], [[2]])), ("two", ([[3]], [[2]]))):
        entry = {"attempt_1": grids[0], "attempt_2": grids[1]}
        (tmp_path / f"{name}.json").write_text(json.dumps({"a": [entry, entry]}))
    return tmp_path


def test_two_submissions_become_one(files: Path) -> None:
    paths = [str(files / "one.json"), str(files / "two.json")]
    submissions(str(files / "tasks.json"), paths, str(files / "out.json"), [1, 3])
    merged = read_submission(files / "out.json", read_tasks(files / "tasks.json"))
    assert [cells(list(test)) for test in merged["a"]] == [[3, 2], [3, 2]]


def test_a_merged_submission_prints_how_many_test_inputs_have_placeholders(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, out = [str(files / "one.json"), str(files / "two.json")], str(files / "out.json")
    submissions(str(files / "tasks.json"), paths, out)
    assert capsys.readouterr().out == ""
    nothing = {"attempt_1": [[0]], "attempt_2": [[0]]}
    (files / "one.json").write_text(json.dumps({"a": [nothing, nothing | {"attempt_1": [[5]]}]}))
    submissions(str(files / "tasks.json"), paths[:1], out)
    assert capsys.readouterr().out == (
        f"Placeholders in {out}: 1 of 2 test inputs have no candidate, [[0]] in both attempts; "
        "1 of 2 test inputs have a single candidate, [[0]] in the second attempt.\n"
    )


def test_two_candidate_files_become_one(files: Path, cli: Callable[..., str]) -> None:
    paths = [str(files / "one.json"), str(files / "two.json")]
    candidates(str(files / "tasks.json"), paths, str(files / "out.json"), [1, 2])
    written = json.loads((files / "out.json").read_text())
    assert [sorted(np.ravel(test).tolist()) for test in written["a"]] == [[1, 2, 2, 2, 3, 3]] * 2
    arguments = ["--tasks", str(files / "tasks.json"), "--files", json.dumps(paths), "--out", str(files / "again.json")]
    cli("merge", "candidates", *arguments, "--weights=[1, 2]")
    assert (files / "again.json").read_text() == (files / "out.json").read_text()


@pytest.mark.parametrize("weights", ([1.0], [1.0, 0.0], [1.0, -1.0], [1.0, math.inf], [1.0, math.nan]))
def test_weights_that_make_no_sense_are_refused(files: Path, weights: list[float]) -> None:
    paths = [str(files / "one.json"), str(files / "two.json")]
    for merge in (candidates, submissions):
        with pytest.raises(DataError, match="weights: expected one of more than 0 for each of 2 files"):
            merge(str(files / "tasks.json"), paths, str(files / "out.json"), weights)
        with pytest.raises(DataError, match="files: nothing to merge"):
            merge(str(files / "tasks.json"), [], str(files / "out.json"))
