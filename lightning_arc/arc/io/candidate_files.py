"""Reading and writing candidates: attempts in JSON, verifier files, Parquet pools, and folders of them."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning_arc.arc.candidates import Candidate, CandidatePool, Pool
from lightning_arc.arc.io.attempts import Attempts, is_benchmark
from lightning_arc.arc.io.files import entries, expand, no_cycle_search, read_json, sub_folders, write_json
from lightning_arc.arc.io.merged_pool import MergedPool
from lightning_arc.arc.io.pool_file import PoolFile
from lightning_arc.arc.task import PairKey, Task
from lightning_arc.errors import DataError, OversizedLineError, shortened
from lightning_arc.folders import find_candidates


class CandidateWarning(UserWarning):
    """Some candidates of a file were passed over."""


def read_candidates(paths: str | Path | Iterable[str | Path], tasks: Mapping[str, Task]) -> CandidatePool:
    """Read candidates of given tasks from several files into memory; their votes add up.

    Votes of verifier files are not added: such a file holds a solver's candidates without the right output, so next to
    the same solver's candidates every wrong one would count twice. A candidate that is in both kinds of files gets the
    greater of its two vote counts.

    Args:
        paths: JSON files ``{task_id: [{"attempt_1": grid, …} or [grid, …] per test input]}``, where an object with the
            grid as its ``answer`` may stand for a grid; lists with an entry a test input, named after their task, as
            arc-agi-benchmarking writes them; verifier files (``{task_id: {"n_train": n, "train": [{…, "attempt_1":
            grid}]}}``); Parquet pools; ``bundled:NAME`` of this package; or folders of such, or of folders of such.
            Empty grids and ``null`` are skipped.
        tasks: the tasks whose candidates are read.

    Returns:
        The pool of all files, in order of first appearance; candidates that only verifier files have come last. Other
        tasks in the files are skipped, with one `CandidateWarning` that counts them.

    Raises:
        DataError: names the file, task and field; also if a file or folder has none of the tasks.
    """
    pool = CandidatePool()
    merged = open_pool(paths, tasks)
    with no_cycle_search():
        for key in merged:
            if key.task_id in tasks:
                pool.open(key)
                for candidate in merged[key]:
                    pool.add(key, candidate)
    return pool


def open_pool(paths: str | Path | Iterable[str | Path], tasks: Mapping[str, Task]) -> Pool:
    """Open candidates of given tasks: Parquet pools are read on access, other files now.

    On each access, a pair's candidates from several files are merged by the rules of `read_candidates`.

    Args:
        paths: as for `read_candidates`.
        tasks: the tasks whose candidates are read.

    Raises:
        DataError: like `read_candidates`.
    """
    pools: list[Pool] = []
    without_votes, others, with_others, attempts = CandidatePool(), set(), [], Attempts()
    for path in map(expand, [paths] if isinstance(paths, str | Path) else paths):
        path = find_candidates(path)
        pool, n_asked, passed_over = CandidatePool(), 0, set()
        for file in _files(path):
            if file.suffix.lower() == ".parquet":
                opened = PoolFile(file)
                pools.append(opened)
                found = _check_pairs(opened, tasks)
            else:
                with no_cycle_search():
                    found = _read_json(file, tasks, pool, without_votes, attempts, in_folder=file != path)
            n_asked += found[0]
            passed_over |= found[1]
        if not n_asked:
            raise DataError(f"{path}: has no candidates for any of the {len(tasks)} asked tasks")
        pools.append(pool)
        if passed_over:
            others |= passed_over
            with_others.append(str(path))
    if others:
        message = f"{', '.join(with_others)}: {len(others)} tasks were not asked for and passed over"
        warnings.warn(message, CandidateWarning, stacklevel=2)
    if attempts.n_malformed:
        message = f"{attempts.n_malformed} answers are no grids and passed over, the first: {attempts.first}"
        warnings.warn(message, CandidateWarning, stacklevel=2)
    pools = [pool for pool in pools if len(pool)]
    if len(pools) == 1 and not len(without_votes):
        return pools[0]
    return MergedPool(pools, without_votes) if pools else without_votes


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


def read_pool(path: str | Path) -> CandidatePool:
    """Read a whole Parquet pool.

    Raises:
        DataError: if the file is no pool, or one of its rows is invalid.
    """
    pool = CandidatePool()
    with no_cycle_search():
        pool.merge(PoolFile(path))
    return pool


def _files(path: Path) -> list[Path]:
    """Return a path's candidate files: itself, or those in a folder, or in the folders in it if it has none."""
    if not path.is_dir():
        return [path]
    files = _in_folder(path) or [file for folder in sub_folders(path) for file in _in_folder(folder)]
    if not files:
        raise DataError(f"{path}: holds no candidate files (.json or .parquet)")
    return files


def _in_folder(folder: Path) -> list[Path]:
    return sorted(file for file in entries(folder) if file.suffix.lower() in (".json", ".parquet"))


def _task(tasks: Mapping[str, Task], task_id: str) -> Task | None:
    """Return a task of ``tasks``, ``None`` if it is not one of them or has an oversized grid."""
    try:
        return tasks.get(task_id)
    except OversizedLineError:
        return None


def _check_pairs(pool: PoolFile, tasks: Mapping[str, Task]) -> tuple[int, set[str]]:
    """Return how many pairs of ``tasks`` a pool has, and the ids of its other tasks."""
    n_asked, others = 0, set()
    for key in pool:
        task = _task(tasks, key.task_id)
        if task is None:
            others.add(key.task_id)
            continue
        if key.split not in ("train", "test") or not 0 <= key.index < len(
            task.demonstrations if key.split == "train" else task.tests
        ):
            raise DataError(f"{pool.path}: {key}: the task has no such pair")
        n_asked += 1
    return n_asked, others


def _read_json(
    path: Path,
    tasks: Mapping[str, Task],
    pool: CandidatePool,
    without_votes: CandidatePool,
    attempts: Attempts,
    in_folder: bool = False,
) -> tuple[int, set[str]]:
    """Add a file's candidates to ``pool``, verifier entries to ``without_votes``; return as `_check_pairs` does."""
    content, source = read_json(path), path.name
    if is_benchmark(content):
        content = {path.stem: content}
        if path.stem not in tasks and not in_folder:
            name = shortened(path.stem)
            raise DataError(
                f"{path}: a list of attempts is of the task that its file is named after, and {name} is none"
            )
        source = path.parent.name if in_folder else source
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object of candidates by task id")
    n_asked, others = 0, set()
    for task_id, value in content.items():
        task, where = _task(tasks, task_id), f"{path}: task {shortened(task_id)}"
        if task is None:
            others.add(task_id)
            continue
        n_asked += 1
        if isinstance(value, dict) and "n_train" in value:
            _add_verifier(without_votes, task, value, where, source, attempts)
            continue
        if not isinstance(value, list) or len(value) != len(task.tests):
            found = f"{len(value)} entries" if isinstance(value, list) else "no list of candidates"
            raise DataError(f"{where}: has {found}, the task has {len(task.tests)} test inputs")
        for i, one in enumerate(value):
            _add_attempts(pool, PairKey(task_id, "test", i), one, f"{where}: [{i}]", source, attempts)
    return n_asked, others


def _add_verifier(
    pool: CandidatePool, task: Task, value: dict[str, Any], where: str, source: str, attempts: Attempts
) -> None:
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
        proposed = {name: grid for name, grid in pair.items() if name not in ("input", "output")}
        _add_attempts(pool, key, proposed, f"{where}: train[{i}]", source, attempts)


def _add_attempts(pool: CandidatePool, key: PairKey, value: Any, where: str, source: str, attempts: Attempts) -> None:
    pool.open(key)
    for grid in attempts.grids(value, where):
        pool.add(key, Candidate(grid, 1, (source,)))
