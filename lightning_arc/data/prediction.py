"""What is predicted: tasks, their queries and candidates, and the prompts that a model is given about them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from lightning_arc.arc import (
    CandidatePool,
    Episode,
    LabeledCandidate,
    PairKey,
    Task,
    add_right_outputs,
    read_candidates,
    same_grid,
)
from lightning_arc.arc.io.tasks import Oversized
from lightning_arc.augment.views import common_views, key_seed
from lightning_arc.data.queries import opening_tree, read_predicted, read_queries
from lightning_arc.data.sampler import fit_demonstrations, fit_tree
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.tree import TokenTree
from lightning_arc.ranking.records import ScoringRequest


@dataclass
class PredictionSet:
    """Tasks whose outputs are ranked or generated.

    Args:
        tasks: by id.
        passed_over: number of test inputs of each task that cannot be predicted, by its id.
        queries: episodes whose output is predicted.
        candidates: of the queries, and of the tasks' other pairs.
    """

    tasks: dict[str, Task] = field(default_factory=dict)
    passed_over: dict[str, int] = field(default_factory=dict)
    queries: dict[PairKey, Episode] = field(default_factory=dict)
    candidates: CandidatePool = field(default_factory=CandidatePool)

    def one_query_per_task(self) -> list[Episode]:
        """Return the first query of each task; all queries of a task have the same demonstrations."""
        return list({key.task_id: episode for key, episode in reversed(self.queries.items())}.values())

    def signature(self, settings: Sequence[Any], all_candidates: bool) -> str:
        """Return a name of what is predicted and how.

        Args:
            settings: everything else that a prediction depends on, as JSON holds it.
            all_candidates: whether candidates of pairs that are no queries matter too.
        """
        digest = hashlib.sha256(json.dumps(settings).encode())
        for task in self.tasks.values():
            for pair in (*task.demonstrations, *task.tests):
                digest.update(pair.input.tobytes() + (b"" if pair.output is None else pair.output.tobytes()))
            for key in task.keys():  # noqa: SIM118
                if key in self.queries or all_candidates:
                    digest.update(b"".join(c.grid.tobytes() for c in self.candidates[key]))
        return digest.hexdigest()[:16]


def read_prediction_set(
    source: str,
    files: Sequence[str] | None,
    *,
    held_out_fraction: float,
    oversized: Oversized,
    only_with_candidates: bool,
    leave_one_out: bool,
    with_right_output: bool,
    pool_demonstrations: tuple[int, int],
    seed: int,
) -> PredictionSet:
    """Read what is predicted.

    Args:
        source: tasks, in any form that `read_tasks` takes.
        files: of candidates; ``None`` where candidates are generated.
        held_out_fraction: see `ArcDataModule`, as for all others.
        oversized: ``data.oversized_tasks``.
        only_with_candidates: whether tasks without candidates are left out.
        leave_one_out: whether demonstration pairs are queries too.
        with_right_output: whether known right outputs are added to the candidates.
        pool_demonstrations: least and most demonstrations of a list of interchangeable pairs.
        seed: draws these.

    Raises:
        DataError: names the file, the task and the field that is not as it must be.
    """
    tasks, passed_over = read_predicted(source, held_out_fraction, oversized)
    candidates = None if files is None else read_candidates(files, tasks)
    if candidates is not None and only_with_candidates:
        named = {key.task_id for key in candidates}
        tasks = {task_id: task for task_id, task in tasks.items() if task_id in named}
    queries = read_queries(tasks.values(), leave_one_out, pool_demonstrations, seed, candidates)
    if candidates is None:
        return PredictionSet(tasks, passed_over, queries)
    if with_right_output and (n := add_right_outputs(candidates, queries.values())):
        rank_zero_warn(f"data.with_right_output: {n} right outputs are ranked that no solver proposed")
    return PredictionSet(tasks, passed_over, queries, candidates)


def request_tree(
    encoder: PromptEncoder, data: PredictionSet, request: ScoringRequest, prompt: str, max_seq_len: int, seed: int
) -> TokenTree | None:
    """Make the token tree of a request about candidates.

    Args:
        encoder: writes the prompt.
        data: has the query and its candidates.
        request: which candidates are scored, under which view.
        prompt: name and version of the verification prompt.
        max_seq_len: most tokens of prefix and branch; demonstrations are left out until they fit.
        seed: of the views.

    Returns:
        The tree, or ``None`` if it is too long with one demonstration.
    """
    query = data.queries[request.key]
    candidates = [
        LabeledCandidate(c.grid, None if query.output is None else same_grid(c.grid, query.output), i, c.votes)
        for i, c in enumerate(data.candidates[request.key])
    ]
    if not request.selections:
        candidates = [candidates[i] for i in request.candidates]
    view = common_views(request.view + 1, len(query.demonstrations), seed, request.key)[request.view]
    shown = view.apply(replace(query, answers=tuple(candidates)))
    if request.selections:
        return fit_tree(lambda e: encoder.selections(e, request.selections), shown, max_seq_len, drop=True)
    return fit_demonstrations(encoder, shown, prompt, max_seq_len, drop=True)


@dataclass(frozen=True)
class GenerationRequest:
    """What is written of a query under one view.

    Args:
        key: the pair that the query is.
        view: number of the view.
        n_demonstrations: that the pair has, shown or not.
        end_id: token id that ends an answer.
        max_new_tokens: most tokens of an answer.
        seed: of sampling.
    """

    key: PairKey
    view: int
    n_demonstrations: int
    end_id: int
    max_new_tokens: int
    seed: int


def generation_tree(
    encoder: PromptEncoder, query: Episode, number: int, max_seq_len: int, seed: int
) -> tuple[GenerationRequest, TokenTree] | None:
    """Make the token tree that an output is generated behind.

    Args:
        encoder: writes the prompt.
        query: whose output is generated.
        number: of the view.
        max_seq_len: most tokens of prompt and output.
        seed: of the views, and of sampling.

    Returns:
        What is generated and the tree, ``None`` if it is too long.
    """
    n_demonstrations = len(query.demonstrations)
    view = common_views(number + 1, n_demonstrations, seed, query.key)[number]
    tree = opening_tree(encoder, view.apply(query), max_seq_len)
    if tree is None:
        return None
    drawn = int(np.random.SeedSequence([seed, key_seed(query.key), number]).generate_state(1)[0])
    room = max_seq_len - tree.longest
    return GenerationRequest(query.key, number, n_demonstrations, encoder.end_id, room, drawn), tree
