"""Merging solvers: python cli.py merge candidates, or submissions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lightning_arc.arc import (
    CandidatePool,
    Grid,
    Task,
    read_candidates,
    read_submission,
    read_tasks,
    same_grid,
    write_candidates,
    write_submission,
)
from lightning_arc.arc.grid import grid_key
from lightning_arc.arc.io.outputs import check_file
from lightning_arc.arc.io.submission import NO_ANSWER, count_placeholders
from lightning_arc.errors import DataError
from lightning_arc.ranking.coverage import explain_placeholders

POINTS = (2.0, 1.0)
"""Points of a first and a second attempt (Borda, 1781)."""


def weighted_pool(pools: Sequence[CandidatePool], weights: Sequence[float]) -> CandidatePool:
    """Merge candidates of several solvers; votes are multiplied by their solver's weight and add up.

    Args:
        pools: the candidates of each solver.
        weights: weight of each solver, more than 0. Votes are rounded, to at least one.
    """
    merged = CandidatePool()
    for pool, weight in zip(pools, weights, strict=True):
        for key in pool:
            merged.open(key)
            for candidate in pool[key]:
                merged.add(key, replace(candidate, votes=max(1, round(weight * candidate.votes))))
    return merged


def best_two(attempts: Sequence[Sequence[Grid]], weights: Sequence[float]) -> list[Grid]:
    """Return the two best of several solvers' attempts at a test input.

    A first attempt has two points, a second one has one, times the solver's weight. Points of equal grids add up; of
    tied grids the one that is listed first wins. Placeholders are left out.

    Args:
        attempts: the attempts of each solver, the best first.
        weights: weight of each solver.
    """
    points: dict[bytes, float] = {}
    grids: dict[bytes, Grid] = {}
    for place, worth in enumerate(POINTS):
        for given, weight in zip(attempts, weights, strict=True):
            before = any(same_grid(given[place], grid) for grid in given[:place])
            if same_grid(given[place], NO_ANSWER) or before:
                continue
            name = grid_key(given[place])
            grids.setdefault(name, given[place])
            points[name] = points.get(name, 0.0) + worth * weight
    best = sorted(grids, key=lambda name: -points[name])
    return [grids[name] for name in best[: len(POINTS)]]


def candidates(tasks: str, files: list[str], out: str, weights: list[float] | None = None) -> None:
    """Merge candidate files of several solvers into one.

    Args:
        tasks: the tasks, in any form that `read_tasks` takes.
        files: candidate files, as `read_candidates` takes them.
        out: the JSON file that is written.
        weights: factor of each file's votes; ``null`` for 1.

    Raises:
        DataError: names the invalid input.
    """
    check_file(out, "out")
    known = read_tasks(tasks)
    shares = _weights(files, weights)
    write_candidates(weighted_pool([read_candidates(file, known) for file in files], shares), known, out)


def submissions(tasks: str, files: list[str], out: str, weights: list[float] | None = None) -> None:
    """Merge submissions of several solvers into the best two attempts.

    Args:
        tasks: the tasks that are answered, in any form that `read_tasks` takes.
        files: submissions; of attempts with equal points, those of earlier submissions win.
        out: the submission that is written.
        weights: weight of each submission; ``null`` for 1.

    Raises:
        DataError: names the invalid input.
    """
    check_file(out, "out")
    known = read_tasks(tasks)
    shares = _weights(files, weights)
    merged = merged_answers([read_submission(file, known) for file in files], known, shares)
    write_submission(merged, known, out)
    for sentence in explain_placeholders(count_placeholders(merged, known), out):
        print(sentence)


def merged_answers(
    given: Sequence[Mapping[str, Sequence[tuple[Grid, Grid]]]], tasks: Mapping[str, Task], weights: Sequence[float]
) -> dict[str, list[list[Grid]]]:
    """Return by task id the `best_two` of each test input."""
    return {
        task_id: [best_two([one[task_id][i] for one in given], weights) for i in range(len(task.tests))]
        for task_id, task in tasks.items()
    }


def _weights(files: Sequence[str], weights: Sequence[float] | None) -> list[float]:
    shares = [1.0] * len(files) if weights is None else list(weights)
    if not files:
        raise DataError("files: nothing to merge")
    if len(shares) != len(files) or not all(0 < weight < math.inf for weight in shares):
        raise DataError(f"weights: expected one of more than 0 for each of {len(files)} files")
    return shares
