"""Lessons: what a task's own demonstrations teach a model before it is asked about the task's query.

Knows tasks, candidates and how training samples are drawn. Knows nothing of models or of how they learn.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from lightning_arc.arc.candidates import CandidatePool
from lightning_arc.arc.files import file_name
from lightning_arc.arc.grid import DataError
from lightning_arc.arc.task import Episode, PairKey, Task
from lightning_arc.augment.views import key_seed
from lightning_arc.batch import TreeBatch
from lightning_arc.prompt.layouts import VERIFY, WRITE
from lightning_arc.prompt.prompter import Prompter
from lightning_arc.prompt.tree import TokenTree
from lightning_arc.sampling import Sampler, SamplingOptions
from lightning_arc.sources import Source, TaskList


class Lesson:
    """Training batches made of an episode's demonstrations, each in turn left out of the others.

    Every sample is shown under a view that is drawn for it, without task composition. Wrong predictions beside a
    demonstration's output are candidates that were proposed for that demonstration and contradict it, and near misses
    that are made of it. Nothing of the query is used.

    Args:
        episode: whose demonstrations teach.
        task: which task they are pairs of.
        pool: candidates of the task's pairs.
        prompter: makes token trees.
        options: how samples are drawn.
        prompts: names and versions of the prompts that are made, all equally often.
        collate: makes a training batch of trees.
        seed: with a batch's number, determines it.

    Attributes:
        key: names the lesson.
        seed: of the query's task, for what else is random about it.
        teaches: whether there are two demonstrations at least, one to be left out and one to be shown.
    """

    def __init__(
        self,
        episode: Episode,
        task: Task,
        pool: CandidatePool,
        prompter: Prompter,
        options: SamplingOptions,
        prompts: Sequence[str],
        collate: Callable[[Sequence[TokenTree]], TreeBatch],
        seed: int,
    ) -> None:
        self.key = lesson_key(episode.key)
        self.seed = key_seed(self.key)
        self.teaches = len(episode.demonstrations) > 1
        places = {id(task.pair(key)): key for key in task.keys()}  # noqa: SIM118
        taught, own = Task(str(self.key), episode.demonstrations, ()), CandidatePool()
        for i, pair in enumerate(taught.demonstrations):
            for candidate in pool[places[id(pair)]]:
                own.add(PairKey(taught.id, "train", i), candidate)
        tasks = TaskList({taught.id: taught}, [taught.id])
        source = Source(taught.id, tasks, own, tuple(prompts), np.full(len(prompts), 1 / len(prompts)), 1.0)
        options = replace(options, compose_new_task_probability=0.0)
        self._sampler = Sampler([source], prompter, options, seed * 2**32 + self.seed)
        self._collate = collate

    @property
    def name(self) -> str:
        """Its key as a file's name, which no other lesson has and which no ``@`` of a task's id is in."""
        task_id, split, index = self.key
        return file_name(task_id) + ("" if split == "test" else f"@pair{index}")

    def batch(self, number: int, n_trees: int) -> TreeBatch | None:
        """Return a batch of ``n_trees`` trees, ``None`` if none of the demonstrations is short enough to be asked."""
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
