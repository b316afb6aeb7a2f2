"""Lessons: what a task's own demonstrations teach a model before it is asked about the task's query.

Knows tasks, candidates and how training samples are drawn. Knows nothing of models or of how they learn.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

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
from lightning_arc.prompt.templates import VERIFY, WRITE
from lightning_arc.prompt.tree import TokenTree

WHOLE_SET = PairKey("", "set", 0)
"""Names the lesson of all tasks together."""


class TestTimeDataset:
    """Training batches made of demonstrations, each in turn left out of the others of its task.

    Every sample is shown under a view that is drawn for it, a single task's without task composition. Wrong predictions
    beside a demonstration's output are candidates that were proposed for that demonstration and contradict it, and near
    misses that are made of it. Nothing of a query is used.

    Args:
        key: names the lesson.
        episodes: whose demonstrations teach, one of each task.
        tasks: which tasks they are pairs of, by id.
        pool: candidates of the tasks' pairs.
        prompt_encoder: makes token trees.
        options: how samples are drawn.
        prompts: names and versions of the prompts that are made, all equally often.
        collate: makes a training batch of trees.
        seed: with a batch's number, determines it.

    Attributes:
        seed: of the key, for what else is random about it.
        teaches: whether a task has two demonstrations at least, one to be left out and one to be shown.
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
        taught, proposed = {}, CandidatePool()
        for episode in episodes:
            if len(episode.demonstrations) < 2:
                continue
            task = tasks[episode.key.task_id]
            keys = {id(task.pair(key)): key for key in task.keys()}  # noqa: SIM118
            for i, pair in enumerate(episode.demonstrations):
                for candidate in pool[keys[id(pair)]]:
                    proposed.add(PairKey(task.id, "train", i), candidate)
            taught[task.id] = Task(task.id, episode.demonstrations, ())
        self.teaches = bool(taught)
        shares = np.full(len(prompts), 1 / len(prompts))
        source = Source("demonstrations", TaskList(taught, list(taught)), proposed, tuple(prompts), shares, 1.0)
        if key != WHOLE_SET:
            options = replace(options, compose_new_task_probability=0.0)
        self._sampler = Sampler([source], prompt_encoder, options, seed * 2**32 + self.seed) if taught else None

    @property
    def name(self) -> str:
        """Its key as a file's name, which no other lesson has and which no ``@`` of a task's id is in."""
        if self.key == WHOLE_SET:
            return "@set"
        task_id, split, index = self.key
        return file_name(task_id) + ("" if split == "test" else f"@pair{index}")

    def batch(self, number: int, n_trees: int) -> TreeBatch | None:
        """Return a batch of ``n_trees`` trees, ``None`` if none of the demonstrations is short enough to be asked."""
        if self._sampler is None:
            return None
        try:
            samples = [self._sampler.sample(number * n_trees + i) for i in range(n_trees)]
        except DataError:
            return None
        return self._collate([sample.tree for sample in samples])


def lesson_key(key: PairKey) -> PairKey:
    """Return what names the lesson before a query; all test inputs of a task share one."""
    return key._replace(index=0) if key.split == "test" else key


def lesson_prompts_beside(predict_prompt: str) -> list[str]:
    """Return the prompts that teach verdicts and the writing of outputs alike."""
    return [predict_prompt] if predict_prompt == VERIFY else [predict_prompt, WRITE]
