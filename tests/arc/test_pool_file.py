"""Pools on disk: what a pool in memory gives, read pair by pair."""

import os
import pickle
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_arc.arc import Candidate, CandidatePool, Pair, PairKey, PoolFile, PoolWriter, Task, as_grid
from lightning_arc.arc import write_pool as write
from lightning_arc.arc.grid import grid_key, same_grid
from lightning_arc.arc.io.pool_file import ROWS_PER_GROUP
from lightning_arc.errors import DataError

KEYS = [PairKey(task, split, i) for task in ("a", "Ä\0b", "c") for split in ("train", "test") for i in range(3)]
GRIDS = st.builds(
    lambda h, w, seed: as_grid(np.random.default_rng(seed).integers(10, size=(h, w))),
    *(st.integers(1, 30), st.integers(1, 30), st.integers(0, 5)),
)
CANDIDATES = st.builds(
    Candidate,
    GRIDS,
    st.integers(1, 9),
    st.lists(st.sampled_from(["x", "y"]), unique=True).map(tuple),
    st.none() | st.floats(-50, 0),
    st.none() | st.booleans(),
)
POOLS = st.dictionaries(st.sampled_from(KEYS), st.lists(CANDIDATES, max_size=6), max_size=8)


def filled(found) -> CandidatePool:
    pool = CandidatePool()
    for key, candidates in found.items():
        pool.open(key)
        for candidate in candidates:
            pool.add(key, candidate)
    return pool


def as_tuple(candidate: Candidate) -> tuple:
    return (*vars(replace(candidate, grid=None)).values(), candidate.grid.tolist(), candidate.grid.dtype)


def many(n_pairs: int, each: int, seed: int = 0) -> CandidatePool:
    rng, pool = np.random.default_rng(seed), CandidatePool()
    for i in range(n_pairs):
        for grid in rng.integers(10, size=(each, 3, 4)):
            pool.add(PairKey(f"t{i}", "train", 0), Candidate(as_grid(grid)))
    return pool


@given(found=POOLS)
def test_a_pool_on_disk_gives_what_the_pool_in_memory_gives(tmp_path_factory, found):
    pool, path = filled(found), tmp_path_factory.mktemp("pool") / "p.parquet"
    write(pool, path)
    file = PoolFile(path)
    assert list(file) == list(pool) and len(file) == len(pool) and file.n_grids == pool.n_grids
    for key in KEYS:
        assert [as_tuple(c) for c in file[key]] == [as_tuple(c) for c in pool[key]]
        assert (key in file) == (key in pool)
        for candidate in pool[key]:
            wrong = [[grid_key(grid) for grid in each.wrong(key, candidate.grid)] for each in (file, pool)]
            assert wrong[0] == wrong[1] and grid_key(candidate.grid) not in wrong[0]


def test_pairs_lie_in_many_row_groups_and_are_found_in_any_order(tmp_path):
    pool = many(350, 100)
    write(pool, tmp_path / "p.parquet")
    file = PoolFile(tmp_path / "p.parquet", cache_bytes=100_000)
    assert pq.ParquetFile(tmp_path / "p.parquet").num_row_groups >= 350 * 100 // (ROWS_PER_GROUP + 100) > 10
    for i in np.random.default_rng(1).permutation(350).tolist():
        key = PairKey(f"t{i}", "train", 0)
        assert [as_tuple(c) for c in file[key]] == [as_tuple(c) for c in pool[key]]
        assert file._cached_bytes <= 350_000
    assert 1 < len(file._cache) < 4


@given(n=st.integers(0, 8), seed=st.integers(0, 2**32), right=st.integers(0, 5), stored=st.booleans())
def test_drawn_predictions_are_distinct_and_never_right(tmp_path_factory, n, seed, right, stored):
    pool, key = many(1, 5), PairKey("t0", "train", 0)
    given_right = pool[key][right].grid if right < 5 else as_grid([[1]])
    if stored:
        path = tmp_path_factory.mktemp("pool") / "p.parquet"
        write(pool, path)
    drawn = (PoolFile(path) if stored else pool).draw_wrong(np.random.default_rng(seed), key, given_right, n)
    assert len(drawn) == min(n, 4 if right < 5 else 5)
    assert len({grid_key(grid) for grid in drawn}) == len(drawn)
    assert not any(same_grid(grid, given_right) for grid in drawn)
    assert drawn == [] or not (stored and pool.draw_wrong(np.random.default_rng(seed), KEYS[0], given_right, n))


def test_every_wrong_prediction_is_drawn_equally_often():
    pool, key, rng = many(1, 5), PairKey("t0", "train", 0), np.random.default_rng(0)
    right = pool[key][2].grid
    counts = np.zeros(5)
    for _ in range(4000):
        for grid in pool.draw_wrong(rng, key, right, 2):
            counts[next(i for i, c in enumerate(pool[key]) if same_grid(c.grid, grid))] += 1
    assert counts[2] == 0
    assert (np.abs(counts[[0, 1, 3, 4]] - 2000) < 5 * np.sqrt(4000 * 0.5 * 0.5)).all()


def test_memory_and_disk_draw_the_same(tmp_path):
    pool, key = many(3, 40), PairKey("t1", "train", 0)
    write(pool, tmp_path / "p.parquet")
    one, other = (
        each.draw_wrong(np.random.default_rng(3), key, as_grid([[0]]), 6)
        for each in (pool, PoolFile(tmp_path / "p.parquet"))
    )
    assert [grid.tolist() for grid in one] == [grid.tolist() for grid in other]


def test_a_pool_goes_to_other_processes(tmp_path):
    pool, key = many(50, 60), PairKey("t44", "train", 0)
    write(pool, tmp_path / "p.parquet")
    file = PoolFile(tmp_path / "p.parquet")
    expected = [as_tuple(c) for c in file[key]]
    copy = pickle.loads(pickle.dumps(file))
    assert [as_tuple(c) for c in copy[key]] == expected
    assert len(pickle.dumps(file)) < 1000
    child = os.fork()
    if child == 0:
        os._exit(
            0
            if [as_tuple(c) for c in file[key]] == expected and [as_tuple(c) for c in file[PairKey("t0", "train", 0)]]
            else 1
        )
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_candidates_are_marked_by_the_outputs_that_are_known(tmp_path):
    one, other = as_grid([[1]]), as_grid([[2]])
    tasks = {"a": Task("a", (Pair(one, other),), (Pair(one, None),))}
    pool = filled({PairKey("a", split, 0): [Candidate(one), Candidate(other)] for split in ("train", "test")})
    write(pool, tmp_path / "p.parquet", tasks)
    file = PoolFile(tmp_path / "p.parquet")
    assert [c.correct for c in file[PairKey("a", "train", 0)]] == [False, True]
    assert [c.correct for c in file[PairKey("a", "test", 0)]] == [None, None]


def test_a_wrong_mark_does_not_make_a_right_output_wrong(tmp_path):
    right, key = as_grid([[1]]), PairKey("a", "train", 0)
    write(filled({key: [Candidate(right, correct=False)]}), tmp_path / "p.parquet")
    file = PoolFile(tmp_path / "p.parquet")
    assert file.wrong(key, right) == [] and file.draw_wrong(np.random.default_rng(0), key, right, 3) == []


def test_a_pair_that_is_written_twice_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="twice"), PoolWriter(tmp_path / "p.parquet") as writer:
        writer.add(KEYS[0], [Candidate(as_grid([[1]]))])
        writer.add(KEYS[0], [])
    assert not list(tmp_path.iterdir())


def test_writing_that_is_interrupted_leaves_the_old_file(tmp_path):
    path = tmp_path / "p.parquet"
    write(many(2, 3), path)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), PoolWriter(path) as writer:
        writer.add(KEYS[0], [Candidate(as_grid([[1]]))])
        raise KeyboardInterrupt
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("bad", [np.array([[10]]), np.array([[-1]]), np.zeros((1, 31)), np.zeros((0, 3))])
def test_cells_that_are_no_grid_are_refused_when_they_are_read(tmp_path, bad):
    path = tmp_path / "bad.parquet"
    write(filled({KEYS[0]: [Candidate(as_grid([[1]])), Candidate(bad.astype(np.int8))]}), path)
    file = PoolFile(path)
    for read in (lambda: file[KEYS[0]], lambda: file.draw_wrong(np.random.default_rng(0), KEYS[0], as_grid([[2]]), 1)):
        with pytest.raises(DataError, match=f"^{re.escape(str(path))}: row group 0 has cells that are no grids$"):
            read()


def test_a_damaged_row_group_is_refused_in_one_line_when_it_is_read(tmp_path):
    path = tmp_path / "p.parquet"
    write(many(40, 100), path)
    data = bytearray(path.read_bytes())
    data[200:20000] = b"\xff" * 19800
    path.write_bytes(data)
    file = PoolFile(path)
    with pytest.raises(DataError) as error:
        for key in file:
            file.wrong(key, as_grid([[1]]))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_another_file_is_refused_in_one_line(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    old = pa.table({"x": [1]}).replace_schema_metadata({b"format": b"lightning-arc-pool-1"})
    pq.write_table(old, tmp_path / "old.parquet")
    new = pa.table({"x": [1]}).replace_schema_metadata({b"format": b"lightning-arc-pool-2"})
    pq.write_table(new, tmp_path / "columns.parquet")
    (tmp_path / "bytes.parquet").write_bytes(b"nothing")
    (tmp_path / "empty.parquet").write_bytes(b"")
    write(many(2, 3), tmp_path / "cut.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "cut.parquet").read_bytes()[:-20])
    for name in ("other", "old", "columns", "bytes", "empty", "cut", "none"):
        path = tmp_path / f"{name}.parquet"
        reason = r"not a candidate pool \(.*" if name in ("other", "old") else "cannot be read as a Parquet pool: .+"
        reason = "there is no such pool; make pool, or python cli.py pool, makes one" if name == "none" else reason
        with pytest.raises(DataError, match=f"^{re.escape(str(path))}: {reason}$"):
            PoolFile(path)
