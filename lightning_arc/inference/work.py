"""Resumable work: the records of every step are kept, and gathered at the end."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import lightning as L
from lightning.pytorch.utilities import rank_zero_info

from lightning_arc.arc import PairKey
from lightning_arc.data.prediction import PredictionData
from lightning_arc.inference.journal import Journal, read_journal, remove_other_work
from lightning_arc.inference.predictor import Predictor
from lightning_arc.model.arc_model import ArcModel

Batch = TypeVar("Batch")


class ViewRecord(Protocol):
    """The query and view of a record."""

    @property
    def key(self) -> PairKey:
        """The query."""

    @property
    def view(self) -> int:
        """Number of the view."""


Record = TypeVar("Record", bound=ViewRecord)


class PredictionWork(ABC, Generic[Batch, Record]):
    """The work of a prediction, in steps whose records are kept in ``NAME-RANK.jsonl`` in ``default_root_dir``.

    After an interruption the same command continues from these journals, with any number of processes. When nothing is
    left to do, it only writes the results again. A record has a ``key`` and a ``view``.

    Args:
        trainer: has the processes and the folder.
        model: with its weights.
        data: what is predicted.
    """

    name: str
    """Prefix of the journals' names."""

    title: str
    """Description of the work for people."""

    unit: str
    """Noun for an answer."""

    def __init__(self, trainer: L.Trainer, model: ArcModel, data: PredictionData) -> None:
        self.trainer, self.model, self.data = trainer, model, data
        self.folder = Path(trainer.default_root_dir)
        self.predictor = Predictor(model, data, self.folder / "adapters")
        self._signature = f"{data.signature}-{model.signature}"
        self.done = self.records()
        if self.done:
            rank_zero_info(f"{self.folder}: goes on from {len(self.done)} views of queries that were finished before")
        trainer.strategy.barrier()  # nobody writes while another still reads
        if trainer.is_global_zero:  # an earlier run may have had more processes; files of other names are a person's
            now = {self._path(rank) for rank in range(trainer.world_size)}
            earlier = {path for path in self._paths() if path.stem.rpartition("-")[2].isdecimal()} - now
            remove_other_work(earlier, self._signature)
        self._journal: Journal[Record] = Journal(
            self._path(trainer.global_rank), self._signature, self.encode, self.decode
        )

    def prepare(self) -> None:
        """Before the first batch, train on the demonstrations of all tasks together if the settings say so."""
        if self.data.options.test_time_scope == "set":
            if self.trainer.is_global_zero:
                with self.trainer.precision_plugin.predict_step_context():
                    self.predictor.adapt_to_set()
            self.trainer.strategy.barrier()  # the others read the result

    @property
    def n_views(self) -> int:
        """Number of views that results are written from; an earlier run may have asked more."""
        return self.data.options.n_views

    @property
    @abstractmethod
    def progress(self) -> tuple[int, int]:
        """Views that are done, and all of them, of this process."""

    @abstractmethod
    def note(self) -> str:
        """Return a further text for the progress display."""

    @abstractmethod
    def batches(self) -> Iterator[Batch]:
        """Yield this process's remaining batches; the records of a batch may decide the next one."""

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
        return [r for path in self._paths() for r in read_journal(path, self._signature, self.decode)[1]]

    def _path(self, rank: int) -> Path:
        """Return the path of a process's journal."""
        return self.folder / f"{self.name}-{rank}.jsonl"

    def _paths(self) -> list[Path]:
        """Return the paths of all journals that are there."""
        return sorted(self.folder.glob(f"{self.name}-*.jsonl"))

    def close(self) -> None:
        """Close the journal, from which later runs continue."""
        self._journal.close()

    def finish(self) -> None:
        """Write the results of all processes' records so far, in the first process."""
        if self.trainer.is_global_zero:
            self.write([record for record in self.records() if record.view < self.n_views])


def batches_of_equal(keys: Sequence[tuple[int, PairKey | None]]) -> list[list[int]]:
    """Return the indices of equal keys, a list a key, in the order in which the keys first appear."""
    groups: dict[tuple[int, PairKey | None], list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return list(groups.values())
