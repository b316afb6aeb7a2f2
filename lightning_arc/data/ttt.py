"""Datasets of test-time training: the demonstrations of the tasks at hand, each in turn the query."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lightning_arc.arc.candidates import CandidatePool
from lightning_arc.arc.io.files import file_name
from lightning_arc.arc.task import Episode, PairKey, Task
from lightning_arc.augment.views import key_seed
from lightning_arc.data.batch import TreeBatch
from lightning_arc.data.sampler import Sampler, SamplingOptions
from lightning_arc.data.sources import Source, TaskList
from lightning_arc.errors import DataError
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.templates import FROM_CODE, PROMPTS, VERIFY, WRITE
from lightning_arc.prompt.tree import TokenTree

Scope = Literal["task", "set"]
"""Whether each task is trained on alone, or all of them together."""

WHOLE_SET = PairKey("", "set", 0)
"""The key of the dataset of all tasks together."""


@dataclass(frozen=True)
class TestTimeOptions:
    """What is trained on at test time.

    Args:
        test_time_scope: whose demonstrations are trained on at test time: each task's alone (``task``), those of all
            tasks together (``set``), or none (follows ``model.test_time``).
        test_time_prompts: prompts of this training; ``null`` for `predict_prompt` and, unless that writes outputs too,
            a prompt that does.

    Raises:
        DataError: names a prompt that cannot be used.
    """

    test_time_scope: Scope | None = None
    test_time_prompts: list[str] | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        for prompt in self.test_time_prompts or ():
            if PROMPTS.get(prompt) in (None, *FROM_CODE):
                raise DataError(
                    f"data.test_time_prompts: {prompt!r}: expected a prompt that needs no code, such as {VERIFY}"
                )


class TestTimeDataset:
    """Training batches of demonstrations, each in turn left out of the others of its task.

    Every sample has a view of its own; a single task's samples have no task composition. The wrong predictions beside a
    demonstration's output are near misses, and candidates that were proposed for that demonstration. The query's input
    and output are never used; where it is a demonstration that was left out (``data.leave_one_out``), the task's known
    test pairs are.

    Args:
        key: names the dataset.
        episodes: one of each task, with the demonstrations that are trained on.
        tasks: by id.
        pool: candidates of the tasks' pairs.
        prompt_encoder: makes token trees.
        options: how samples are drawn.
        prompts: names and versions of the prompts, all equally frequent.
        collate: makes a training batch of token trees.
        seed: determines a batch, together with its number.

    Attributes:
        seed: derived from the key, for further random choices.
        usable: whether any task has two demonstrations, one for the query and one to be shown.
    """

    def __init__(
        self,
        key: PairKey,
        episodes: Iterable[Episode],
        tasks: Mapping[str, Task],
        pool: CandidatePool,
        prompt_encoder: PromptEncoder,
        options: SamplingOptions,
        prompts: Sequence[str],
        collate: Callable[[Sequence[TokenTree]], TreeBatch],
        seed: int,
    ) -> None:
        self.key, self.seed, self._collate = key, key_seed(key), collate
        trained, proposed = {}, CandidatePool()
        for episode in episodes:
            if len(episode.demonstrations) < 2:
                continue
            task = tasks[episode.key.task_id]
            keys = {id(task.pair(key)): key for key in task.keys()}  # noqa: SIM118
            for i, pair in enumerate(episode.demonstrations):
                for candidate in pool[keys[id(pair)]]:
                    proposed.add(PairKey(task.id, "train", i), candidate)
            trained[task.id] = Task(task.id, episode.demonstrations, ())
        self.usable = bool(trained)
        shares = np.full(len(prompts), 1 / len(prompts))
        source = Source("demonstrations", TaskList(trained, list(trained)), proposed, tuple(prompts), shares, 1.0)
        if key != WHOLE_SET:
            options = replace(options, compose_new_task_probability=0.0)
        self._sampler = Sampler([source], prompt_encoder, options, seed * 2**32 + self.seed) if trained else None

    @property
    def name(self) -> str:
        """A file name for the key. No other key has it: the only ``@`` is the one before the pair's number."""
        if self.key == WHOLE_SET:
            return "@set"
        task_id, split, index = self.key
        return file_name(task_id) + ("" if split == "test" else f"@pair{index}")

    def batch(self, number: int, n_trees: int) -> TreeBatch | None:
        """Return a batch of ``n_trees`` trees, ``None`` if every demonstration is too long."""
        if self._sampler is None:
            return None
        try:
            samples = [self._sampler.sample(number * n_trees + i) for i in range(n_trees)]
        except DataError:
            return None
        return self._collate([sample.tree for sample in samples])


def dataset_key(key: PairKey, scope: Scope) -> PairKey:
    """Return the key of the dataset for a query; all test inputs of a task share one."""
    if scope == "set":
        return WHOLE_SET
    return key._replace(index=0) if key.split == "test" else key


def prompts_beside(predict_prompt: str) -> list[str]:
    """Return prompts that train verdicts as well as the writing of outputs."""
    return [predict_prompt] if predict_prompt == VERIFY else [predict_prompt, WRITE]
