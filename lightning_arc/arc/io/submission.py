"""Submissions: two attempts for every test input, in the competition's JSON form."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_arc.arc.grid import Grid, as_grid, named_grid
from lightning_arc.arc.io.files import expand, read_json, write_json
from lightning_arc.arc.task import Task
from lightning_arc.errors import DataError, shortened

ATTEMPTS = ("attempt_1", "attempt_2")
NO_ANSWER: Grid = as_grid([[0]])
"""The placeholder for a missing attempt."""


def write_submission(
    answers: Mapping[str, Sequence[Sequence[Grid]]],
    tasks: Mapping[str, Task],
    path: str | Path,
    passed_over: Mapping[str, int] | None = None,
) -> None:
    """Write a submission with every task and test input, ``[[0]]`` where there is no attempt.

    Args:
        answers: by task id, for each test input its grids, the best first; only the first two are written. A task that
            is left out has no attempts.
        tasks: the tasks to answer.
        path: where it goes; written whole or not at all.
        passed_over: number of test inputs of each skipped task, by its id; they get placeholders.

    Raises:
        ValueError: if there are answers of another task, or not one list per test input.
    """
    unknown = [task_id for task_id in answers if task_id not in tasks]
    if unknown:
        raise ValueError(f"answers of task {unknown[0]}, which is none of the tasks")
    value = {}
    for task_id, task in tasks.items():
        tests = answers.get(task_id, [()] * len(task.tests))
        if len(tests) != len(task.tests):
            raise ValueError(f"task {task_id}: answers of {len(tests)} test inputs, it has {len(task.tests)}")
        value[task_id] = [_entry(grids) for grids in tests]
    for task_id, n_tests in (passed_over or {}).items():
        value[task_id] = [_entry(())] * n_tests
    write_json(path, value)


def count_placeholders(
    answers: Mapping[str, Sequence[Sequence[Grid]]],
    tasks: Mapping[str, Task],
    passed_over: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Return how many test inputs a submission has ``[[0]]`` for.

    Args:
        answers: as `write_submission` takes them.
        tasks: the tasks to answer.
        passed_over: as `write_submission` takes them.

    Returns:
        ``n_tests``, all test inputs; ``no_candidate``, those with a placeholder in both attempts; ``one_candidate``,
        those with one in the second attempt alone.
    """
    found = [len(grids) for task_id, task in tasks.items() for grids in answers.get(task_id, [()] * len(task.tests))]
    found += [0] * sum((passed_over or {}).values())
    return {"n_tests": len(found), "no_candidate": found.count(0), "one_candidate": found.count(1)}


def read_submission(
    path: str | Path, tasks: Mapping[str, Task] | None = None, complete: bool = True
) -> dict[str, list[tuple[Grid, Grid]]]:
    """Read a submission and check its form.

    Args:
        path: the file.
        tasks: if given, exactly these tasks and all of their test inputs must be there.
        complete: if false, tasks may be missing or unknown; a task that is there still needs all its test inputs.

    Returns:
        By task id, the two attempts of each test input.

    Raises:
        DataError: names the file, the task and the invalid field.
    """
    path = expand(path)
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object of attempts by task id")
    if tasks is not None:
        if complete:
            _check_tasks(content, tasks, path)
        _check_tests(content, tasks, path)
    return {task_id: _attempts(value, f"{path}: task {shortened(task_id)}") for task_id, value in content.items()}


def _entry(grids: Sequence[Grid]) -> dict[str, list[list[int]]]:
    two = [*grids, NO_ANSWER, NO_ANSWER][: len(ATTEMPTS)]
    return {name: np.asarray(grid).tolist() for name, grid in zip(ATTEMPTS, two, strict=True)}


def _check_tasks(content: dict[str, Any], tasks: Mapping[str, Task], path: Path) -> None:
    unknown = [task_id for task_id in content if task_id not in tasks]
    if unknown:
        raise DataError(f"{path}: task {shortened(unknown[0])}: is none of the {len(tasks)} tasks")
    for task_id in tasks:
        if task_id not in content:
            raise DataError(f"{path}: task {shortened(task_id)}: is missing")


def _check_tests(content: dict[str, Any], tasks: Mapping[str, Task], path: Path) -> None:
    for task_id, task in tasks.items():
        value = content.get(task_id)
        if isinstance(value, list) and len(value) != len(task.tests):
            found = f"has attempts for {len(value)} test inputs, the task has {len(task.tests)}"
            raise DataError(f"{path}: task {shortened(task_id)}: {found}")


def _attempts(value: Any, where: str) -> list[tuple[Grid, Grid]]:
    if not isinstance(value, list):
        raise DataError(f"{where}: expected a list with attempts for each test input")
    for i, test in enumerate(value):
        if not isinstance(test, dict) or set(test) != set(ATTEMPTS):
            raise DataError(f"{where}: [{i}]: expected an object of {' and '.join(ATTEMPTS)}")
    grids = [[named_grid(test[name], f"{where}: [{i}].{name}") for name in ATTEMPTS] for i, test in enumerate(value)]
    return [(first, second) for first, second in grids]
