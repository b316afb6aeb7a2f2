"""Leave-one-out: every pair of a task as a query in turn.

Knows tasks and episodes. Knows nothing of files, prompts or models.
"""

from collections.abc import Iterator

from lightning_arc.arc.task import Episode, Pair, PairKey, Task


def leave_one_out(task: Task) -> Iterator[Episode]:
    """Iterate over episodes, one for each pair of a task that leaves a demonstration to be shown.

    A test pair keeps the task's demonstrations. A demonstration pair gives its place to a test pair, the first whose
    output is known, so that as many are shown; where none is known there is one fewer. A demonstration that is the only
    one and that no test pair can stand for is passed over, as are all pairs of a pool of pairs.

    Args:
        task: a task; the 400 training tasks of ARC-AGI-1 give 1,718 episodes.
    """
    if task.is_pool:
        return
    known = [pair for pair in task.tests if pair.output is not None][:1]
    for i, pair in enumerate(task.demonstrations):
        others: tuple[Pair, ...] = (*task.demonstrations[:i], *known, *task.demonstrations[i + 1 :])
        if others:
            yield Episode(PairKey(task.id, "train", i), others, pair.input, pair.output, (), task.code)
    for i, pair in enumerate(task.tests):
        yield Episode(PairKey(task.id, "test", i), task.demonstrations, pair.input, pair.output, (), task.code)
