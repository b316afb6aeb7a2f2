"""Leave-one-out: every pair of a task as a query in turn."""

from collections.abc import Iterator

import numpy as np

from lightning_arc.arc.task import Episode, Pair, PairKey, Task

FEW, MANY = 2, 5
"""Default least and most demonstrations that are drawn from a pool of pairs."""


def leave_one_out(task: Task, drawn: tuple[int, int] = (FEW, MANY), seed: int = 0) -> Iterator[Episode]:
    """Iterate over episodes, one for each pair of a task that leaves a demonstration to be shown.

    A test pair as the query keeps the task's demonstrations. Where a demonstration is the query, the first test pair
    with a known output takes its place, so that the number of demonstrations stays the same; without such a test pair
    there is one fewer. A task's only demonstration is skipped if no test pair can take its place. For each pair of a
    pool, demonstrations are drawn from the others.

    Args:
        task: a task; the 400 training tasks of ARC-AGI-1 give 1,718 episodes.
        drawn: least and most demonstrations of a pool of pairs.
        seed: determines, with the task's id and the pair's place, which demonstrations are drawn.
    """
    known = [pair for pair in task.tests if pair.output is not None][:1]
    for i, pair in enumerate(task.demonstrations):
        before, behind = task.demonstrations[:i], task.demonstrations[i + 1 :]
        if task.is_pair_generator:
            others: tuple[Pair, ...] = _draw((*before, *behind), drawn, [seed, i, *task.id.encode()])
        else:
            others = (*before, *known, *behind)
        if others:
            yield Episode(PairKey(task.id, "train", i), others, pair.input, pair.output, (), task.code)
    for i, pair in enumerate(task.tests):
        yield Episode(PairKey(task.id, "test", i), task.demonstrations, pair.input, pair.output, (), task.code)


def _draw(pairs: tuple[Pair, ...], drawn: tuple[int, int], seed: list[int]) -> tuple[Pair, ...]:
    rng = np.random.default_rng(seed)
    n = min(int(rng.integers(drawn[0], drawn[1] + 1)), len(pairs))
    return tuple(pairs[i] for i in rng.choice(len(pairs), size=n, replace=False).tolist())
