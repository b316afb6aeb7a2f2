"""Queries: the pairs whose outputs a model is to write or to judge, and the prompts it writes them behind."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from lightning_arc.arc import CandidatePool, Episode, PairKey, Task, base_id, leave_one_out
from lightning_arc.arc.io.tasks import Oversized, read_all_tasks
from lightning_arc.arc.leave_one_out import FEW, MANY
from lightning_arc.data.checks import check_at_least_1
from lightning_arc.data.sources import id_share
from lightning_arc.errors import DataError
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.templates import PROMPTS, VERIFY, WRITE
from lightning_arc.prompt.tree import IGNORE, Branch, PromptKind, TokenTree


@dataclass(frozen=True)
class QueryOptions:
    """What is predicted, and how the model is asked.

    Args:
        tasks: what is predicted, in any form that `read_tasks` takes.
        candidates: files of candidates that are ranked; votes of several files add up.
        generate: whether candidates are generated for `tasks`, instead of ranking given ones.
        leave_one_out: whether demonstration pairs are predicted too, each in turn left out of the demonstrations; in
            ranking, only those that have candidates.
        with_right_output: whether a known right output that is not among a query's candidates is ranked with them. It
            has no vote. This measures a verifier, not a solver.
        only_with_candidates: whether tasks that no candidate file names are left out of the prediction.
        predict_prompt: a verification prompt that candidates are ranked with.
        n_views: symmetry views of every query, and of every candidate that is judged without ``model.stopping``.

    Raises:
        DataError: names the invalid option.
    """

    tasks: str | None = None
    candidates: str | list[str] | None = None
    generate: bool = False
    leave_one_out: bool = False
    with_right_output: bool = False
    only_with_candidates: bool = False
    predict_prompt: str = VERIFY
    n_views: int = 8

    def __post_init__(self) -> None:
        """Check the options."""
        check_at_least_1(self, "n_views")
        if PROMPTS.get(self.predict_prompt) is not PromptKind.VERIFY_OUTPUT_FROM_EXAMPLES:
            raise DataError(
                f"data.predict_prompt {self.predict_prompt!r}: expected a verification prompt such as {VERIFY}"
            )

    @property
    def candidate_files(self) -> list[str]:
        """The files of candidates as a list, although a person may name a single one without a list."""
        return [self.candidates] if isinstance(self.candidates, str) else self.candidates or []


def held_out(tasks: Mapping[str, Task], fraction: float) -> dict[str, Task]:
    """Return the tasks that training with this ``data.held_out_fraction`` leaves out; all of them where it is 0.

    Raises:
        DataError: if none of the tasks is left.
    """
    kept = [task_id for task_id in tasks if _is_held_out(task_id, fraction)]
    if fraction and not kept:
        raise DataError(f"data.held_out_fraction: {fraction:g} holds none of the {len(tasks)} tasks of data.tasks out")
    return {task_id: tasks[task_id] for task_id in kept}


def read_predicted(source: str, fraction: float, oversized: Oversized) -> tuple[dict[str, Task], dict[str, int]]:
    """Read what is predicted: the tasks that `held_out` keeps, and the test inputs of those passed over, by id.

    Raises:
        DataError: names the invalid input.
    """
    tasks = read_all_tasks(source, oversized)
    return held_out(tasks, fraction), {i: n for i, n in tasks.oversized.items() if _is_held_out(i, fraction)}


def _is_held_out(task_id: str, fraction: float) -> bool:
    return not fraction or id_share(base_id(task_id)) < fraction


def read_queries(
    tasks: Iterable[Task],
    every_pair: bool,
    pool_demonstrations: tuple[int, int] = (FEW, MANY),
    seed: int = 0,
    candidates: CandidatePool | None = None,
) -> dict[PairKey, Episode]:
    """Return the episodes whose outputs are to be written or judged.

    Args:
        tasks: the tasks to predict.
        every_pair: whether demonstration pairs are predicted too, each in turn left out of the demonstrations.
        pool_demonstrations: least and most demonstrations that are drawn from a pool of pairs.
        seed: seed of this drawing.
        candidates: candidates to judge; if given, demonstration pairs without any are left out.

    Raises:
        DataError: if there is none.
    """
    tasks = list(tasks)
    episodes = (
        episode
        for task in tasks
        if every_pair or task.tests
        for episode in leave_one_out(task, pool_demonstrations, seed)
        if every_pair or episode.key.split == "test"
    )
    queries = {episode.key: episode for episode in episodes}
    if not queries and not every_pair:
        raise DataError("data.tasks: no task has a test input; data.leave_one_out: true asks about every pair")
    if not queries:
        raise DataError("data.tasks: no pair leaves another one to be shown as a demonstration")
    if candidates is not None:
        queries = {key: episode for key, episode in queries.items() if key.split == "test" or candidates[key]}
    if not queries:
        raise DataError("data.candidates: no demonstration pair has any, and no task has a test input")
    return queries


def opening_tree(prompt_encoder: PromptEncoder, episode: Episode, max_seq_len: int) -> TokenTree | None:
    """Make the tree of a generation prompt: a prefix, and one branch that holds the prompt's last token.

    Demonstrations are left out, the last ones first, until there is room for an output as long as the longest of theirs
    and the query.

    Returns:
        The tree, or ``None`` if there is no room with one demonstration either.
    """
    while True:
        ids = prompt_encoder.opening(episode)
        shown = [episode.query, *(pair.known_output for pair in episode.demonstrations)]
        if len(ids) + max(len(prompt_encoder.write(grid)) for grid in shown) + 1 <= max_seq_len:
            break
        if len(episode.demonstrations) < 2:
            return None
        episode = replace(episode, demonstrations=episode.demonstrations[:-1])
    kinds, weights = np.array([PromptKind.OUTPUT_FROM_EXAMPLES], np.int8), np.zeros(1, np.float32)
    found = prompt_encoder.opening_positions(episode)
    first, last = (None, None) if found is None else (found[:-1], found[-1:])
    branch = Branch(ids[-1:], np.array([IGNORE], np.int32), kinds, weights, positions=last)
    return TokenTree(ids[:-1], np.full(len(ids) - 1, IGNORE, np.int32), (branch,), WRITE, first)
