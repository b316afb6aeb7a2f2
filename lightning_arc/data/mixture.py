"""The training mixture: datasets without held-out and judged tasks, and a line about each."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import lightning as L
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_arc.arc.io.tasks import Oversized
from lightning_arc.arc.task import Task, base_id
from lightning_arc.data.leaks import drop_leaks, leak_message, refuse_leaks, source_leaks
from lightning_arc.data.sources import DatasetConfig, Source, id_share, only, read_source
from lightning_arc.errors import DataError


@dataclass(frozen=True)
class MixtureOptions:
    """Training and validation datasets.

    Args:
        train_datasets: datasets to train on.
        val_dataset: dataset to validate on; its candidates are ranked and compared with voting.
        evaluation_tasks: further tasks that no training dataset may hold, beside those that are validated or, with
            `tasks`, predicted.
        drop_leaks: whether such tasks, and all tasks with the id of one, are left out of the training datasets; then
            any pair in common is a leak. Otherwise a dataset with leaks is refused.
        allow_leaks: whether training datasets may hold such tasks.

    Raises:
        DataError: names the options that contradict each other.
    """

    train_datasets: list[DatasetConfig] | None = None
    val_dataset: DatasetConfig | None = None
    evaluation_tasks: list[str] | None = None
    drop_leaks: bool = False
    allow_leaks: bool = False

    def __post_init__(self) -> None:
        """Check the options."""
        if self.drop_leaks and self.allow_leaks:
            raise DataError("data.drop_leaks and data.allow_leaks are both true, expected at most one of them")


def split(source: Source, fraction: float, held_out: bool) -> Source:
    """Return the tasks of a source that are held out, or the others; all of them where the fraction is 0.

    Args:
        source: the source.
        fraction: share of the ids that is held out, variations of a task and pools of its pairs together.
        held_out: which of the two.
    """
    return only(source, lambda task_id: (id_share(base_id(task_id)) < fraction) == held_out) if fraction else source


def read_mixture(
    datasets: Sequence[DatasetConfig],
    oversized: Oversized,
    fraction: float,
    judged: Sequence[Task],
    drop: bool = False,
    allow: bool = False,
    trainer: L.Trainer | None = None,
    validated: Sequence[Task] = (),
) -> list[Source]:
    """Read training datasets, without held-out tasks and, if `drop`, without leaks of judged tasks.

    Args:
        datasets: datasets to train on.
        oversized: how tasks with too large a grid are treated, see `read_tasks`.
        fraction: share of the tasks that is held out, by their ids.
        judged: tasks that must not be trained on.
        drop: whether leaking tasks, and all tasks with the id of one, are left out, with one line about each dataset.
            Any pair in common is then a leak.
        allow: whether leaking tasks are trained on, with a warning.
        trainer: its first process looks for leaks and tells the others.
        validated: judged tasks whose ids are left out of datasets that have ``hold_out: false``.

    Raises:
        DataError: names the invalid input, leaks that are neither dropped nor allowed, or a dataset without a task
            left.
    """
    read = [read_source(dataset, oversized) for dataset in datasets]
    ids = {base_id(task.id) for task in validated if task.is_named}
    sources = [
        split(source, fraction, held_out=False)
        if dataset.hold_out
        else only(source, lambda task_id: base_id(task_id) not in ids)
        for dataset, source in zip(datasets, read, strict=True)
    ]
    paths, dropped = [dataset.path for dataset in datasets], [Counter[str]() for _ in datasets]
    if judged:
        # The first process looks, and tells the others.
        first = trainer is None or trainer.is_global_zero
        found = [
            source_leaks(path, source, judged, any_pair=drop) if first else []
            for path, source in zip(paths, sources, strict=True)
        ]
        found = found if trainer is None else trainer.strategy.broadcast(found)
        if allow:
            for path, leaks in zip(paths, found, strict=True):
                if leaks:
                    rank_zero_warn(leak_message(path, leaks))
        elif drop:
            sources, dropped = drop_leaks(sources, found)
        else:
            refuse_leaks(paths, found)
    total_weight = sum(source.weight for source in sources)
    for path, whole, source, reasons in zip(paths, read, sources, dropped, strict=True):
        n_held_out = len(whole.tasks) - len(source.tasks) - reasons.total()
        line = source_line(path, source, len(whole.tasks), n_held_out, reasons)
        if not len(source.tasks):
            raise DataError(f"data.train_datasets: no task left to train with: {line}")
        if drop:
            rank_zero_info(f"{line}; {source.weight / total_weight:.1%} of the samples")
    return sources


def source_line(path: str, source: Source, n_tasks: int, n_held_out: int, dropped: Counter[str]) -> str:
    """Return a line that says how many tasks of a dataset are trained with, and why others are not.

    Args:
        path: where it was read from.
        source: the dataset without the other tasks.
        n_tasks: how many tasks there were.
        n_held_out: how many are held out.
        dropped: how many are left out because they leak, by reason.
    """
    reasons = ", ".join(f"{n} for {reason}" for reason, n in dropped.most_common())
    why = f" ({reasons})" if reasons else ""
    return (
        f"{path}: {len(source.tasks):,} of {n_tasks:,} tasks; {n_held_out:,} held out, "
        f"{dropped.total():,} dropped as leaks{why}"
    )
