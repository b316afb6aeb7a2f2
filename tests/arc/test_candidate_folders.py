"""Folders of candidate files, and candidates as arc-agi-benchmarking writes them."""

import json
import re
import warnings

import numpy as np
import pytest

from lightning_arc.arc import (
    Candidate,
    CandidatePool,
    CandidateWarning,
    Pair,
    PairKey,
    Task,
    as_grid,
    open_pool,
    read_candidates,
    read_tasks,
    write_pool,
)
from lightning_arc.errors import DataError

ONE = as_grid([[1]])
TASKS = {
    "a": Task("a", (Pair(ONE, ONE),), (Pair(ONE, None),) * 2),
    "b": Task("b", (Pair(ONE, ONE),), (Pair(ONE, ONE),)),
}
A0, A1, B0 = PairKey("a", "test", 0), PairKey("a", "test", 1), PairKey("b", "test", 0)


def attempt(answer) -> dict:
    return {"answer": answer, "correct": None, "metadata": {"model": "some", "cost": float("nan")}}


def votes(pool, key) -> list:
    return [(c.grid.tolist(), c.votes, c.sources) for c in pool[key]]


def test_a_folder_with_a_file_a_task_and_an_entry_a_test_input_is_read(write):
    entry = {"attempt_1": attempt([[2]]), "attempt_2": attempt([[2]]), "attempt_3": attempt([[3, 3]])}
    folder = write("run/a.json", [entry, {"attempt_1": attempt([[4]]), "attempt_2": None}]).parent
    write("run/b.json", [{"attempt_1": attempt(None), "attempt_2": attempt("[[5]]"), "attempt_3": attempt("")}])
    pool = read_candidates(folder, TASKS)
    assert votes(pool, A0) == [([[2]], 2, ("run",)), ([[3, 3]], 1, ("run",))]
    assert votes(pool, A1) == [([[4]], 1, ("run",))] and votes(pool, B0) == [([[5]], 1, ("run",))]
    assert votes(read_candidates(folder / "b.json", TASKS), B0) == [([[5]], 1, ("b.json",))]


def test_answers_that_are_no_grids_are_counted_and_passed_over(write):
    bad = [[[1], [1, 2]], "I do not know", [[11]], [[0] * 31], 3, {"a": 1}, "[" * 5000]
    entry = {f"attempt_{i}": attempt(answer) for i, answer in enumerate([*bad, [[2]]])}
    path = write("run/b.json", [entry])
    with pytest.warns(CandidateWarning) as warned:
        pool = read_candidates(path.parent, TASKS)
    assert votes(pool, B0) == [([[2]], 1, ("run",))]
    first = f"7 answers are no grids and passed over, the first: {path}: task b: [0].attempt_0.answer row 1 has 2"
    assert [str(warning.message).startswith(first) for warning in warned] == [True]


def test_a_folder_takes_files_of_every_form_and_their_votes_add_up(tmp_path, write):
    write("some/a.json", [{"attempt_1": attempt([[2]])}, {"attempt_1": attempt([[2]])}])
    write("some/solver.json", {"a": [[[[2]], [[2]]], []], "b": [{"attempt_1": [[3]]}]})
    write("some/.hidden.json", "no JSON")
    write("some/notes.txt", "no JSON")
    pool = CandidatePool()
    pool.add(A0, Candidate(as_grid([[2]]), 4))
    write_pool(pool, tmp_path / "some" / "p.parquet")
    other = write("other.json", {"a": [[[[2]]], [[[7]]]]})
    for read in (read_candidates, open_pool):
        found = read([tmp_path / "some", other], TASKS)
        assert {tuple(map(tuple, c.grid.tolist())): c.votes for c in found[A0]} == {((2,),): 8}
        assert [c.grid.tolist() for c in found[A1]] == [[[2]], [[7]]] and [c.votes for c in found[B0]] == [1]


def test_folders_in_a_folder_are_the_files_of_several_solvers(write):
    for solver, grid in {"one": [[2]], "two": [[2]], "three": [[3]]}.items():
        folder = write(f"runs/{solver}/b.json", [{"attempt_1": attempt(grid)}]).parent.parent
    assert votes(read_candidates(folder, TASKS), B0) == [([[2]], 2, ("one", "two")), ([[3]], 1, ("three",))]


def test_tasks_of_a_folder_that_were_not_asked_for_are_counted_once(write):
    for name in "bcde":
        folder = write(f"run/{name}.json", [{"attempt_1": attempt([[2]])}]).parent
    with pytest.warns(CandidateWarning, match=f"^{re.escape(str(folder))}: 3 tasks were not asked for") as warned:
        read_candidates(folder, TASKS)
    assert len(warned) == 1


def test_faults_of_candidate_folders_are_named(tmp_path, write):
    (tmp_path / "empty").mkdir()
    none = write("none/c.json", [{"attempt_1": attempt([[2]])}])
    short = write("short/a.json", [{"attempt_1": attempt([[2]])}])
    missing = write("missing/b.json", [{"attempt_1": {"metadata": {}}}])
    plain = write("plain/b.json", [{"attempt_1": [[1], [1, 2]]}])
    long = write("long/b.json", [{"attempt_1": attempt([[2]]), "x" * 10**6: 3}])
    for path, message in {
        tmp_path / "empty": f"{tmp_path / 'empty'}: holds no candidate files (.json or .parquet)",
        none.parent: f"{none.parent}: has no candidates for any of the 2 asked tasks",
        none: f"{none}: a list of attempts is of the task that its file is named after, and c is none",
        short.parent: f"{short}: task a: has 1 entries, the task has 2 test inputs",
        missing.parent: f"{missing}: task b: [0].attempt_1: answer is missing, expected a grid or null",
        plain.parent: f"{plain}: task b: [0].attempt_1 row 1 has 2 cells, row 0 has 1",
        long.parent: f"{long}: task b: [0]: 'xxxx",
    }.items():
        with pytest.raises(DataError) as error:
            read_candidates(path, TASKS)
        assert str(error.value).startswith(message) and len(str(error.value)) < 500


def test_candidates_of_lines_with_too_large_a_grid_are_passed_over(write):
    pair = {"input": [[1]], "output": [[1]]}
    lines = [
        {"id": "a", "train": [pair], "test": [pair]},
        {"id": "b", "train": [pair], "test": [{"input": [[0] * 31]}]},
    ]
    tasks = read_tasks(write("t.jsonl", "".join(json.dumps(line) + "\n" for line in lines)))
    with pytest.warns(CandidateWarning, match="1 tasks were not asked for"):
        pool = open_pool(write("c.json", {"a": [[[[2]]]], "b": [[[[2]]]]}), tasks)
    assert list(pool) == [A0]


def test_real_files_of_one_task_each_are_read(shared):
    tasks = read_tasks(shared / "cases" / "tiny" / "tasks")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pool = read_candidates(shared / "cases" / "benchmark_form", tasks)
    grids = [c.grid for c in pool[PairKey("e872b94a", "test", 0)]]
    assert [grid.tolist() for grid in grids] == [np.zeros((3, 1)).tolist(), np.zeros((2, 1)).tolist()]
