"""Prediction data: tasks, their queries and candidates, and the prompts about them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from lightning_arc.arc import (
    CandidatePool,
    Episode,
    Grid,
    LabeledCandidate,
    PairKey,
    add_right_outputs,
    read_candidates,
    same_grid,
)
from lightning_arc.arc.grid import grid_key
from lightning_arc.augment.views import View, common_views, key_seed
from lightning_arc.data.batch import TreeBatch, TreeShape
from lightning_arc.data.loader import collate
from lightning_arc.data.options import DataOptions
from lightning_arc.data.queries import opening_tree, read_predicted, read_queries
from lightning_arc.data.sampler import fit_demonstrations, fit_tree
from lightning_arc.data.ttt import WHOLE_SET, TestTimeDataset, dataset_key, prompts_beside
from lightning_arc.errors import DataError
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.tree import TokenTree
from lightning_arc.ranking.records import ScoringRequest


@dataclass(frozen=True)
class GenerationRequest:
    """A request to write a query's output under one view.

    Args:
        key: the query's pair.
        view: number of the view.
        n_demonstrations: number of demonstrations that the pair has, in the prompt or not.
        end_id: token id that ends an answer.
        max_new_tokens: most tokens of an answer.
        seed: seed of sampling.
    """

    key: PairKey
    view: int
    n_demonstrations: int
    end_id: int
    max_new_tokens: int
    seed: int


class PredictionData:
    """Tasks whose outputs are ranked or generated, and the prompts about them.

    Args:
        options: say what is predicted, and how the model is asked.
        prompt_encoder: makes token trees.

    Attributes:
        tasks: by id.
        passed_over: number of test inputs of each task that cannot be predicted, by its id.
        queries: episodes whose output is predicted.
        candidates: of the queries, and of the tasks' other pairs; none where they are generated.

    Raises:
        DataError: names the file, the task and the invalid field.
    """

    def __init__(self, options: DataOptions, prompt_encoder: PromptEncoder) -> None:
        files = options.candidate_files
        if options.tasks is None or not (files or options.generate):
            raise DataError("data.tasks and data.candidates: both are needed to rank")
        self.options, self.prompt_encoder = options, prompt_encoder
        self._test_time_dataset: TestTimeDataset | None = None
        tasks, self.passed_over = read_predicted(options.tasks, options.held_out_fraction, options.oversized_tasks)
        candidates = None if options.generate else read_candidates(files, tasks)
        if candidates is not None and options.only_with_candidates:
            named = {key.task_id for key in candidates}
            tasks = {task_id: task for task_id, task in tasks.items() if task_id in named}
        how = options.leave_one_out, options.pool_demonstrations, options.seed
        self.tasks, self.queries = tasks, read_queries(tasks.values(), *how, candidates)
        self.candidates = CandidatePool() if candidates is None else candidates
        if options.with_right_output and (n := add_right_outputs(self.candidates, self.queries.values())):
            rank_zero_warn(f"data.with_right_output: {n} right outputs are ranked that no solver proposed")

    def request_tree(self, request: ScoringRequest) -> TokenTree | None:
        """Make the token tree of a request about candidates.

        Demonstrations are left out, the last ones first, until it has at most ``data.max_seq_len`` tokens.

        Returns:
            The tree, or ``None`` if it is too long with one demonstration.
        """
        query, encoder, limit = self.queries[request.key], self.prompt_encoder, self.options.max_seq_len
        candidates = [
            LabeledCandidate(c.grid, None if query.output is None else same_grid(c.grid, query.output), i, c.votes)
            for i, c in enumerate(self.candidates[request.key])
        ]
        if not request.selections:
            candidates = [candidates[i] for i in request.candidates]
        shown = self._view(query, request.view).apply(replace(query, answers=tuple(candidates)))
        if request.selections:
            return fit_tree(lambda e: encoder.selections(e, request.selections), shown, limit, drop=True)
        return fit_demonstrations(encoder, shown, self.options.predict_prompt, limit, drop=True)

    def cost(self, request: ScoringRequest) -> int:
        """Return the tokens of a request, 0 if it is too long."""
        tree = self.request_tree(request)
        return 0 if tree is None else TreeShape.of(tree).n_tokens

    def generation_tree(self, key: PairKey, number: int) -> tuple[GenerationRequest, TokenTree] | None:
        """Make the token tree that a query's output is generated behind.

        Args:
            key: of the query.
            number: of the view.

        Returns:
            What is generated and the tree, ``None`` if there is no room for an output.
        """
        query, encoder, limit = self.queries[key], self.prompt_encoder, self.options.max_seq_len
        tree = opening_tree(encoder, self._view(query, number).apply(query), limit)
        if tree is None:
            return None
        drawn = int(np.random.SeedSequence([self.options.seed, key_seed(key), number]).generate_state(1)[0])
        n_demonstrations, room = len(query.demonstrations), limit - tree.longest
        return GenerationRequest(key, number, n_demonstrations, encoder.end_id, room, drawn), tree

    def collate(self, trees: Sequence[TokenTree]) -> TreeBatch:
        """Make a batch of token trees."""
        return collate(trees, self.prompt_encoder, self.options)

    def test_time_key(self, key: PairKey) -> PairKey | None:
        """Return the key of the test-time training dataset for a query; ``None`` for no such training."""
        scope = self.options.test_time_scope
        return None if scope is None else dataset_key(key, scope)

    def test_time_dataset(self, key: PairKey) -> TestTimeDataset | None:
        """Return the dataset of test-time training, ``None`` if no task has two demonstrations.

        Args:
            key: names the dataset, see `test_time_key`.
        """
        if self._test_time_dataset is None or self._test_time_dataset.key != key:
            episodes = self._one_query_per_task() if key == WHOLE_SET else [self.queries[key]]
            batch = partial(collate, prompt_encoder=self.prompt_encoder, options=self.options, training=True)
            how = self.prompt_encoder, self.options, self._test_time_prompts, batch, self.options.seed
            self._test_time_dataset = TestTimeDataset(key, episodes, self.tasks, self.candidates, *how)
        return self._test_time_dataset if self._test_time_dataset.usable else None

    @property
    def signature(self) -> str:
        """Name of what is predicted and how: interrupted work is continued only if both are the same."""
        options, trained = self.options, self.options.test_time_scope is not None
        settings: list[Any] = [options.predict_prompt, str(self.prompt_encoder.grid_encoder), options.max_seq_len]
        settings += [options.seed, options.generate, options.leave_one_out, options.pool_demonstrations]
        settings += self.prompt_encoder.conversation
        settings += [self._test_time_prompts, options.sampling_name] if trained else []
        settings += ["set"] if options.test_time_scope == "set" else []
        digest = hashlib.sha256(json.dumps(settings).encode())
        for task in self.tasks.values():
            pairs = (*task.demonstrations, *task.tests)
            _add_grids(digest, task.id, [grid for pair in pairs for grid in (pair.input, pair.output)])
            for key in task.keys():  # noqa: SIM118
                if key in self.queries or trained:
                    _add_grids(digest, str(key), [candidate.grid for candidate in self.candidates[key]])
        return digest.hexdigest()[:16]

    @property
    def _test_time_prompts(self) -> list[str]:
        return self.options.test_time_prompts or prompts_beside(self.options.predict_prompt)

    def _one_query_per_task(self) -> list[Episode]:
        """Return the first query of each task; all queries of a task have the same demonstrations."""
        return list({key.task_id: episode for key, episode in reversed(self.queries.items())}.values())

    def _view(self, query: Episode, number: int) -> View:
        return common_views(number + 1, len(query.demonstrations), self.options.seed, query.key)[number]


def _add_grids(digest: "hashlib._Hash", name: str, grids: Sequence[Grid | None]) -> None:
    """Add a name and its grids to a digest; no other names and grids add the same bytes."""
    digest.update(json.dumps([name, len(grids)]).encode())
    for grid in grids:
        digest.update(b"-" if grid is None else grid_key(grid))
