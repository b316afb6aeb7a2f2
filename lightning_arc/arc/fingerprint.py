"""Task fingerprints, equal up to symmetry, colours and order of pairs, and the leaks that they reveal."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from lightning_arc.arc.grid import N_COLOURS, Grid
from lightning_arc.arc.task import Pair, Task, base_id

SYMMETRIES = 8


@dataclass(frozen=True)
class Leak:
    """A training task that gives away a judged task, one that is validated or predicted.

    Args:
        trained: id of the training task.
        judged: id of the judged task.
        reason: what the two have in common.
    """

    trained: str
    judged: str
    reason: str


def fingerprint(task: Task) -> str:
    """Return a fingerprint of a task's input grids.

    It does not change if the task is reflected or turned, if its colours are permuted, or if its pairs are put in
    another order or exchanged between demonstrations and tests; nor does it depend on which outputs are known.

    Returns:
        32 hexadecimal digits.
    """
    inputs = [pair.input for pair in (*task.demonstrations, *task.tests)]
    return min(_under_symmetry(inputs, symmetry) for symmetry in range(SYMMETRIES)).hex()


def pair_fingerprint(pair: Pair) -> bytes:
    """Return the fingerprint of a pair whose output is known, with the same invariances."""
    return min(
        _digest([_relabelled([_turned(grid, symmetry) for grid in (pair.input, pair.known_output)])])
        for symmetry in range(SYMMETRIES)
    )


def find_leaks(trained: Iterable[Task], judged: Iterable[Task], any_pair: bool = False) -> list[Leak]:
    """Find training tasks that give away judged tasks, those that are validated or predicted.

    A training task leaks if it has the inputs of a judged task (an equal fingerprint), its id, or one of its test
    pairs. A variation has the id of its task, a pool of pairs that of the task it was made for; a line number is no id.
    Any pair of the judged task counts, not only a test pair, if either task is a pool of pairs or if the output of one
    of the judged task's tests is unknown. Pairs are compared with their outputs; a pair whose input has a single colour
    is ignored.

    Args:
        trained: training tasks.
        judged: validated or predicted tasks.
        any_pair: whether any pair of the judged task counts in every case. Tasks with a pair in common have the same
            rule, or rules that agree on it.

    Returns:
        At most one leak for each trained task.
    """
    ids: dict[str, str] = {}
    coarse: dict[bytes, list[Task]] = {}
    pairs: dict[bytes, list[_JudgedPair]] = {}
    for task in judged:
        if task.is_named:
            ids.setdefault(base_id(task.id), task.id)
        coarse.setdefault(_coarse(task), []).append(task)
        demonstrations_leak = any_pair or task.is_pair_generator or any(pair.output is None for pair in task.tests)
        demonstrations = [(pair, demonstrations_leak) for pair in task.demonstrations]
        for pair, leaks_alone in demonstrations + [(pair, True) for pair in task.tests]:
            # An input of a single colour does not identify its task.
            if pair.output is not None and np.ptp(pair.input):
                pairs.setdefault(_coarse_pair(pair), []).append(_JudgedPair(pair, task.id, leaks_alone))
    found = ((task, _leak(task, ids, coarse, pairs)) for task in trained)
    return [Leak(task.id, *leak) for task, leak in found if leak]


class _JudgedPair(NamedTuple):
    """A pair of a judged task; ``leaks_alone``: whether an ordinary training task leaks by holding this pair."""

    pair: Pair
    task_id: str
    leaks_alone: bool


def _leak(
    task: Task, ids: dict[str, str], coarse: dict[bytes, list[Task]], pairs: dict[bytes, list[_JudgedPair]]
) -> tuple[str, str] | None:
    if task.is_named and base_id(task.id) in ids:
        return ids[base_id(task.id)], "the same id"
    if not task.is_pair_generator:
        alike = coarse.get(_coarse(task), ())
        same = fingerprint(task) if alike else ""
        for other in alike:
            if fingerprint(other) == same:
                return other.id, "the same inputs"
    for pair in (*task.demonstrations, *task.tests):
        if pair.output is None:
            continue
        alike_pairs = [one for one in pairs.get(_coarse_pair(pair), ()) if task.is_pair_generator or one.leaks_alone]
        name = pair_fingerprint(pair) if alike_pairs else b""
        for one in alike_pairs:
            if pair_fingerprint(one.pair) == name:
                return one.task_id, "a pair of it"
    return None


def _turned(grid: Grid, symmetry: int) -> Grid:
    turned = grid.T if symmetry & 1 else grid
    turned = turned[::-1] if symmetry & 2 else turned
    return turned[:, ::-1] if symmetry & 4 else turned


def _digest(parts: Iterable[bytes]) -> bytes:
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _under_symmetry(grids: list[Grid], symmetry: int) -> bytes:
    """Return a digest of turned grids in which a colour's number depends only on the places where it stands."""
    turned = [np.ascontiguousarray(_turned(grid, symmetry)) for grid in grids]
    places = [
        tuple(sorted(_digest([bytes(grid.shape), (grid == colour).tobytes()]) for grid in turned))
        for colour in range(N_COLOURS)
    ]
    # Colours in the same places of different grids get one number: nothing but the order of grids tells them apart.
    ranks = {place: rank for rank, place in enumerate(sorted(set(places)))}
    numbers = np.array([ranks[place] for place in places], np.int8)
    return _digest(sorted(_digest([bytes(grid.shape), numbers.take(grid).tobytes()]) for grid in turned))


def _relabelled(grids: list[Grid]) -> bytes:
    """Return grids as bytes, their colours numbered in the order in which they appear."""
    cells = np.concatenate([grid.ravel() for grid in grids])
    _, first, number = np.unique(cells, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first)).astype(np.int8)
    return b"".join(bytes(grid.shape) for grid in grids) + order[number].tobytes()


def _coarse(task: Task) -> bytes:
    """Return a cheap key that is equal for equal fingerprints: side lengths and colour counts of each input."""
    return b"".join(sorted(_coarse_grid(pair.input) for pair in (*task.demonstrations, *task.tests)))


def _coarse_pair(pair: Pair) -> bytes:
    return _coarse_grid(pair.input) + _coarse_grid(pair.known_output)


def _coarse_grid(grid: Grid) -> bytes:
    counts = np.bincount(grid.ravel(), minlength=N_COLOURS)
    counts.sort()
    return bytes(sorted(grid.shape)) + counts.astype(np.int16).tobytes()
