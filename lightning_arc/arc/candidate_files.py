"""Reading and writing candidates: attempts in JSON, verifier files, and the project's Parquet pools.

Knows candidate files and the tasks they are for. Knows nothing of prompts or models.
"""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lightning_arc.arc.candidates import Candidate, CandidatePool
from lightning_arc.arc.files import dump_line as dump_line
from lightning_arc.arc.files import expand, no_cycle_search, read_json, whole_file, write_json
from lightning_arc.arc.grid import DataError, named_grid
from lightning_arc.arc.task import PairKey, Task

POOL_FORMAT = b"lightning-arc-pool-1"
POOL_SCHEMA = pa.schema(
    [
        ("task_id", pa.string()),
        ("split", pa.string()),
        ("index", pa.int32()),
        ("height", pa.int8()),
        ("width", pa.int8()),
        ("cells", pa.binary()),
        ("votes", pa.int32()),
        ("sources", pa.list_(pa.string())),
        ("log_likelihood", pa.float64()),
    ],
    metadata={b"format": POOL_FORMAT},
)


class CandidateWarning(UserWarning):
    """Some candidates of a file were passed over."""


def read_candidates(paths: str | Path | Iterable[str | Path], tasks: Mapping[str, Task]) -> CandidatePool:
    """Read candidates of given tasks from several files; their votes add up.

    Args:
        paths: JSON files ``{task_id: [{"attempt_1": grid, …} or [grid, …] per test input]}``, verifier files
            (``{task_id: {"n_train": n, "train": [{…, "attempt_1": grid}]}}``), or Parquet pools. Empty grids and
            ``null`` are skipped.
        tasks: the tasks that are asked for.

    Returns:
        The pool of all files, in the order of first appearance. Tasks that were not asked for are passed over with one
        `CandidateWarning` that counts them.

    Raises:
        DataError: names the file, task and field; also if a file has none of the tasks.
    """
    pool, others, with_others = CandidatePool(), set(), []
    for path in map(expand, [paths] if isinstance(paths, str | Path) else paths):
        with no_cycle_search():
            read = _read_pool if path.suffix.lower() == ".parquet" else _read_json
            n_asked, passed_over = read(path, tasks, pool)
        if not n_asked:
            raise DataError(f"{path}: has no candidates for any of the {len(tasks)} asked tasks")
        if passed_over:
            others |= passed_over
            with_others.append(str(path))
    if others:
        message = f"{', '.join(with_others)}: {len(others)} tasks were not asked for and passed over"
        warnings.warn(message, CandidateWarning, stacklevel=2)
    return pool


def write_candidates(pool: CandidatePool, tasks: Mapping[str, Task], path: str | Path) -> None:
    """Write the candidates of all test inputs as JSON lists of grids, a grid as often as it has votes."""
    value = {
        task.id: [
            [grid for c in pool[PairKey(task.id, "test", i)] for grid in [c.grid.tolist()] * c.votes]
            for i in range(len(task.tests))
        ]
        for task in tasks.values()
    }
    write_json(path, value)


def write_pool(pool: CandidatePool, path: str | Path) -> None:
    """Write a pool as Parquet (zstd), every pair that has candidates."""
    rows = [
        (*key, *c.grid.shape, c.grid.tobytes(), c.votes, list(c.sources), c.log_likelihood)
        for key in pool
        for c in pool[key]
    ]
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in POOL_SCHEMA]
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, POOL_SCHEMA, strict=True)], schema=POOL_SCHEMA)
    with whole_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_pool(path: str | Path) -> CandidatePool:
    """Read a whole Parquet pool.

    Raises:
        DataError: if the file is none, or one of its rows is not valid.
    """
    path, pool = expand(path), CandidatePool()
    with no_cycle_search():
        _add_rows(pool, _read_table(path), path)
    return pool


def _read_table(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            if (file.schema_arrow.metadata or {}).get(b"format") != POOL_FORMAT:
                raise DataError(f"{path}: not a candidate pool (its format is not {POOL_FORMAT.decode()})")
            table = file.read(columns=POOL_SCHEMA.names).select(POOL_SCHEMA.names).cast(POOL_SCHEMA)
    except (OSError, pa.ArrowException, KeyError) as error:
        reason = (str(error) or "it is damaged").splitlines()[0]
        raise DataError(f"{path}: cannot be read as a Parquet pool: {reason}") from error
    for name in POOL_SCHEMA.names:
        if name != "log_likelihood" and table[name].null_count:
            raise DataError(f"{path}: column {name} has missing values")
    return table


def _add_rows(pool: CandidatePool, table: pa.Table, path: Path) -> None:
    columns = [column.to_pylist() for column in table.columns]
    for task_id, split, index, height, width, cells, votes, sources, log_likelihood in zip(*columns, strict=True):
        key = PairKey(task_id, split, index)
        where = f"{path}: {key}:"
        if split not in ("train", "test") or index < 0:
            raise DataError(f"{where} expected the split train or test, and an index from 0")
        if height < 1 or width < 1 or len(cells) != height * width:
            raise DataError(f"{where} {len(cells)} cells, expected {height} x {width}")
        if votes < 1:
            raise DataError(f"{where} {votes} votes, expected at least 1")
        grid = named_grid(np.frombuffer(cells, np.int8).reshape(height, width), where)
        pool.add(key, Candidate(grid, votes, tuple(sources), log_likelihood))


def _read_pool(path: Path, tasks: Mapping[str, Task], pool: CandidatePool) -> tuple[int, set[str]]:
    table = _read_table(path)
    ids = set(pc.unique(table["task_id"]).to_pylist())
    found = CandidatePool()
    _add_rows(found, table.filter(pc.is_in(table["task_id"], pa.array(ids & tasks.keys(), pa.string()))), path)
    for key in found:
        task = tasks[key.task_id]
        if key.index >= len(task.demonstrations if key.split == "train" else task.tests):
            raise DataError(f"{path}: {key}: the task has no such pair")
    pool.merge(found)
    return len(ids & tasks.keys()), ids - tasks.keys()


def _read_json(path: Path, tasks: Mapping[str, Task], pool: CandidatePool) -> tuple[int, set[str]]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object of candidates by task id")
    asked = [task_id for task_id in content if task_id in tasks]
    for task_id in asked:
        task, value, where = tasks[task_id], content[task_id], f"{path}: task {task_id}"
        if isinstance(value, dict) and "n_train" in value:
            _add_verifier(pool, task, value, where, path.name)
            continue
        if not isinstance(value, list) or len(value) != len(task.tests):
            found = f"{len(value)} entries" if isinstance(value, list) else "no list of candidates"
            raise DataError(f"{where}: has {found}, the task has {len(task.tests)} test inputs")
        for i, attempts in enumerate(value):
            _add_attempts(pool, PairKey(task_id, "test", i), attempts, f"{where}: [{i}]", path.name)
    return len(asked), content.keys() - tasks.keys()


def _add_verifier(pool: CandidatePool, task: Task, value: dict[str, Any], where: str, source: str) -> None:
    n, pairs = value["n_train"], value.get("train")
    expected = len(task.demonstrations) + len(task.tests)
    if type(n) is not int or not isinstance(pairs, list) or len(pairs) != expected or n != len(task.demonstrations):
        raise DataError(
            f"{where}: train: expected {expected} pairs and n_train {len(task.demonstrations)}, as the task has them"
        )
    for i, pair in enumerate(pairs):
        if not isinstance(pair, dict):
            raise DataError(f"{where}: train[{i}]: expected an object with input, output and attempts")
        key = PairKey(task.id, "train", i) if i < n else PairKey(task.id, "test", i - n)
        if pair.get("input", None) not in (None, task.pair(key).input.tolist()):
            raise DataError(f"{where}: train[{i}].input is not that of {key}")
        attempts = {name: grid for name, grid in pair.items() if name not in ("input", "output")}
        _add_attempts(pool, key, attempts, f"{where}: train[{i}]", source)


def _add_attempts(pool: CandidatePool, key: PairKey, attempts: Any, where: str, source: str) -> None:
    pool.open(key)
    if isinstance(attempts, dict):
        named = attempts.items()
        for name in attempts:
            if not name.startswith("attempt_"):
                raise DataError(f"{where}: {name!r}: expected names such as attempt_1")
    elif isinstance(attempts, list):
        named = enumerate(attempts)
    else:
        raise DataError(f"{where}: expected an object of attempts or a list of grids")
    for name, grid in named:
        if not _is_empty(grid):
            pool.add(key, Candidate(named_grid(grid, f"{where}.{name}"), 1, (source,)))


def _is_empty(grid: Any) -> bool:
    return grid is None or (isinstance(grid, list) and all(row == [] for row in grid))
