"""Batches and their loaders: the order of batches is the same for any number of workers and after any restart."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from lightning_arc.data.batch import TreeBatch, default_max_tokens
from lightning_arc.data.checks import check_at_least_1
from lightning_arc.data.workers import follow_parent
from lightning_arc.errors import DataError
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.tree import TokenTree

PREFETCHED = 4
"""Batches that each worker has ready."""


@dataclass(frozen=True)
class BatchOptions:
    """How large batches are, and what prepares them.

    Args:
        batch_size: trees (prompts with all their answers) a step and process.
        max_tokens_per_batch: most tokens that go through the model at once. Trees are packed up to it; the packs of a
            step go through one after the other, and a longer tree goes in parts. ``null`` means 16,384, or 4,096 for
            ranking on a CPU, whose caches hold no more.
        samples_per_epoch: samples until an epoch ends, which is when Lightning may validate and save.
        num_workers: processes that prepare samples; the samples are the same for any number.

    Raises:
        DataError: names the invalid option.
    """

    batch_size: int = 8
    max_tokens_per_batch: int | None = None
    samples_per_epoch: int = 10_000
    num_workers: int = 0

    def __post_init__(self) -> None:
        """Check the options."""
        check_at_least_1(self, "batch_size", "max_tokens_per_batch", "samples_per_epoch")
        if self.num_workers < 0:
            raise DataError(f"data.num_workers is {self.num_workers}, expected 0 or more")


def collate(
    trees: Sequence[TokenTree],
    prompt_encoder: PromptEncoder,
    options: BatchOptions,
    info: Sequence[dict[str, Any]] = (),
    stats: Mapping[str, float] | None = None,
    training: bool = False,
) -> TreeBatch:
    """Make a batch of token trees, see `TreeBatch.collate`.

    Args:
        trees: the trees of the batch.
        prompt_encoder: the prompt encoder that made them.
        options: say how many tokens go through the model at once.
        info: one per tree.
        stats: means that are logged, by name.
        training: whether the batch is for training.
    """
    ids = prompt_encoder.yes_id, prompt_encoder.no_id, prompt_encoder.choice_ids
    limit = options.max_tokens_per_batch or default_max_tokens(training)
    return TreeBatch.collate(trees, *ids, info, stats, limit, training)


class BatchStream(IterableDataset[TreeBatch | DataError]):
    """Batches of numbered samples.

    Args:
        make_batch: makes the batch of given sample numbers.
        batch_size: samples a batch.
        rank: which of the processes that train together this is.
        world_size: how many there are; each takes every ``world_size``-th batch.
    """

    def __init__(self, make_batch: Callable[[range], TreeBatch], batch_size: int, rank: int, world_size: int) -> None:
        self.make_batch, self.batch_size, self.rank, self.world_size = make_batch, batch_size, rank, world_size
        self.first = 0
        self.stop = 0

    @property
    def samples_a_step(self) -> int:
        """Samples of all processes in a step."""
        return self.batch_size * self.world_size

    def __iter__(self) -> Iterator[TreeBatch | DataError]:
        worker = get_worker_info()
        offset, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        # The loader takes from its workers in turn, so that worker w gives batches w, w + n, w + 2n and so on.
        for batch in range(self.first + offset, self.stop, step):
            start = (batch * self.world_size + self.rank) * self.batch_size
            try:
                yield self.make_batch(range(start, start + self.batch_size))
            except DataError as error:  # as it is: the loader would wrap a worker's error in its traceback's text
                yield error
                return


class ResumableLoader(DataLoader):
    """A loader that knows which sample comes next, and begins there after a restart.

    Args:
        stream: the batches.
        batches_per_epoch: batches (of this process) until an epoch ends.
        num_workers: worker processes.
        pin_memory: whether batches are put in page-locked memory.
    """

    def __init__(
        self, stream: BatchStream, batches_per_epoch: int, num_workers: int = 0, pin_memory: bool = False
    ) -> None:
        super().__init__(
            stream,
            batch_size=None,
            num_workers=num_workers,
            pin_memory=pin_memory,
            worker_init_fn=follow_parent,
            prefetch_factor=PREFETCHED if num_workers else None,
        )
        self._stream = stream
        self._batches_per_epoch = batches_per_epoch
        self._next_batch = 0

    def __len__(self) -> int:
        return self._batches_per_epoch

    def __iter__(self) -> Iterator[TreeBatch]:  # type: ignore[override]  # any iterator does
        self._stream.first = self._next_batch
        self._stream.stop = (self._next_batch // self._batches_per_epoch + 1) * self._batches_per_epoch
        for batch in super().__iter__():
            if isinstance(batch, DataError):
                raise batch
            self._next_batch += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the number of samples that all processes have taken."""
        return {"samples": self._next_batch * self._stream.samples_a_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind the samples that were taken."""
        self._next_batch = state["samples"] // self._stream.samples_a_step
