"""Work that goes on where it was interrupted: what every step gives is kept, and put together at the end."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import lightning as L
from lightning.pytorch.utilities import rank_zero_info

from lightning_arc.arc import PairKey
from lightning_arc.data.prediction import PredictionData
from lightning_arc.inference.journal import Journal, read_journal
from lightning_arc.inference.predictor import Predictor
from lightning_arc.model.arc_model import ArcModel

Batch = TypeVar("Batch")


class ViewRecord(Protocol):
    """What a record is about."""

    @property
    def key(self) -> PairKey:
        """The query."""

    @property
    def view(self) -> int:
        """Number of the view."""


Record = TypeVar("Record", bound=ViewRecord)


class PredictionWork(ABC, Generic[Batch, Record]):
    """What a prediction does, in steps whose records are kept in ``NAME-RANK.jsonl`` in ``default_root_dir``.

    The same command goes on from these journals after an interruption, with any number of processes, and only writes
    again where nothing is left to be done. A record has a ``key`` and a ``view``.

    Args:
        trainer: has the processes and the folder.
        model: with its weights.
        data: what is predicted.
    """

    name: str
    """What the journals' names begin with."""

    title: str
    """What is done, as a person reads it."""

    unit: str
    """What an answer is called."""

    def __init__(self, trainer: L.Trainer, model: ArcModel, data: PredictionData) -> None:
        self.trainer, self.model, self.data = trainer, model, data
        self.folder = Path(trainer.default_root_dir)
        self.predictor = Predictor(model, data, self.folder / "adapters")
        self._signature = f"{data.signature}-{model.signature}"
        path, self.done = self.folder / f"{self.name}-{trainer.global_rank}.jsonl", self.records()
        if self.done:
            rank_zero_info(f"{self.folder}: goes on from {len(self.done)} views of queries that were finished before")
        trainer.strategy.barrier()  # nobody writes while another still reads
        self._journal: Journal[Record] = Journal(path, self._signature, self.encode, self.decode)

    def prepare(self) -> None:
        """Train on the demonstrations of all tasks together, where that is wanted, before the first batch."""
        if self.data.options.test_time_scope == "set":
            if self.trainer.is_global_zero:
                with self.trainer.precision_plugin.predict_step_context():
                    self.predictor.adapt_to_set()
            self.trainer.strategy.barrier()  # the others read the result

    @property
    def n_views(self) -> int:
        """Number of views that is written of; more may have been asked by an earlier run."""
        return self.data.options.n_views

    @property
    @abstractmethod
    def progress(self) -> tuple[int, int]:
        """Views that are done, and all of them, of this process."""

    @abstractmethod
    def note(self) -> str:
        """Return what else is known so far, for a person who waits."""

    @abstractmethod
    def batches(self) -> Iterator[Batch]:
        """Yield what is left to be done by this process; what is kept of a batch may decide on the next."""

    @abstractmethod
    def step(self, batch: Batch) -> Sequence[Record]:
        """Return the records of a batch."""

    @abstractmethod
    def write(self, records: list[Record]) -> None:
        """Write the files, in the first process, from the records of all."""

    @abstractmethod
    def encode(self, record: Record) -> dict[str, Any]:
        """Return a record as JSON holds it."""

    @abstractmethod
    def decode(self, value: Any) -> Record | None:
        """Return the record of a JSON value, ``None`` if it holds none."""

    def keep(self, record: Record) -> None:
        """Keep a record; it is on disk when this returns."""
        self._journal.append(record)

    def records(self) -> list[Record]:
        """Return the records of all processes."""
        journals = sorted(self.folder.glob(f"{self.name}-*.jsonl"))
        return [r for path in journals for r in read_journal(path, self._signature, self.decode)[1]]

    def close(self) -> None:
        """Close the journal, which is continued from."""
        self._journal.close()

    def finish(self) -> None:
        """Write, in the first process, what all processes have kept so far."""
        if self.trainer.is_global_zero:
            self.write([record for record in self.records() if record.view < self.n_views])


def batches_of_equal(keys: Sequence[tuple[int, PairKey | None]]) -> list[list[int]]:
    """Return the indices of equal keys, a list a key, in the order in which the keys first appear."""
    groups: dict[tuple[int, PairKey | None], list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return list(groups.values())
