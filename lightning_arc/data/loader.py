"""Loaders: batches by number, in an order that no number of workers changes and any restart continues."""

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from lightning_arc.data.batch import TreeBatch
from lightning_arc.data.workers import follow_parent
from lightning_arc.errors import DataError

PREFETCHED = 4
"""Batches that each worker has ready."""


class BatchStream(IterableDataset):
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
        ahead = PREFETCHED if num_workers else None
        options = {"num_workers": num_workers, "prefetch_factor": ahead, "worker_init_fn": follow_parent}
        super().__init__(stream, batch_size=None, pin_memory=pin_memory, **options)
        self._batches_per_epoch = batches_per_epoch
        self._next_batch = 0

    def __len__(self) -> int:
        return self._batches_per_epoch

    def __iter__(self) -> Iterator[TreeBatch]:
        self.dataset.first = self._next_batch
        self.dataset.stop = (self._next_batch // self._batches_per_epoch + 1) * self._batches_per_epoch
        for batch in super().__iter__():
            if isinstance(batch, DataError):
                raise batch
            self._next_batch += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the number of samples that all processes have taken."""
        return {"samples": self._next_batch * self.dataset.batch_size * self.dataset.world_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind the samples that were taken."""
        self._next_batch = state["samples"] // (self.dataset.batch_size * self.dataset.world_size)
