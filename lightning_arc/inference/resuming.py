"""Prediction that goes on where it was interrupted: what every step gives is kept, and put together at the end."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_info

from lightning_arc.errors import Stopped
from lightning_arc.inference.journal import Journal, read_journal


class ResumingWriter(L.Callback, ABC):
    """Keeps what prediction steps give in ``NAME-RANK.jsonl`` in ``default_root_dir``, and writes from it at the end.

    The same command goes on from these journals after an interruption, with any number of processes, and only writes
    again where nothing is left to be done.
    """

    name: str
    """What the journals' names begin with."""

    def __init__(self) -> None:
        self._journal: Journal[Any] | None = None
        self._signature: str | None = None

    @abstractmethod
    def record(self, output: Any) -> Any:
        """Return the record of what a step gave for one tree; it has a ``key`` and a ``view``."""

    @abstractmethod
    def encode(self, record: Any) -> dict[str, Any]:
        """Return a record as JSON holds it."""

    @abstractmethod
    def decode(self, value: Any) -> Any | None:
        """Return the record of a JSON value, ``None`` if it holds none."""

    @abstractmethod
    def write(self, trainer: L.Trainer, pl_module: L.LightningModule, records: list[Any]) -> None:
        """Write the files, in the first process, from the records of all."""

    def n_views(self, trainer: L.Trainer, pl_module: L.LightningModule) -> int:
        """Return the number of views that is written of; more may have been asked by an earlier run."""
        return trainer.datamodule.n_views

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let the data module pass over what earlier runs of the same command have finished."""
        if stage == "predict":
            self._journal = self._signature = None
            trainer.predict_loop.return_predictions = False  # the journal has them
            # Called when the loader is made, which is after the weights, and so their fingerprint, are there.
            trainer.datamodule.find_finished = lambda: {(r.key, r.view) for r in self._done(trainer)}

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open this process's journal."""
        if self._journal is None:
            self._open(trainer)

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """Keep what a step gave."""
        for output in outputs or ():
            self._journal.append(self.record(output))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write, in the first process; also where nothing was left to be done."""
        if stage != "predict":
            return
        if self._journal is not None:
            self._journal.close()
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            self._write(trainer, pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Close the journal, which is continued from; at a signal write what there is of it."""
        if self._journal is None:
            return
        self._journal.close()
        if isinstance(exception, Stopped) and trainer.is_global_zero:
            self._write(trainer, pl_module)

    def _write(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        n_views = self.n_views(trainer, pl_module)
        self.write(trainer, pl_module, [record for record in self._done(trainer) if record.view < n_views])

    def _open(self, trainer: L.Trainer) -> list[Any]:
        """Open this process's journal; return the records of all that there are."""
        path = Path(trainer.default_root_dir) / f"{self.name}-{trainer.global_rank}.jsonl"
        done = self._done(trainer)
        if done:
            rank_zero_info(f"{path.parent}: goes on from {len(done)} views of queries that were finished before")
        trainer.strategy.barrier()  # nobody writes while another still reads
        self._journal = Journal(path, self._named(trainer), self.encode, self.decode)
        return done

    def _done(self, trainer: L.Trainer) -> list[Any]:
        journals = sorted(Path(trainer.default_root_dir).glob(f"{self.name}-*.jsonl"))
        return [r for path in journals for r in read_journal(path, self._named(trainer), self.decode)[1]]

    def _named(self, trainer: L.Trainer) -> str:
        if self._signature is None:
            self._signature = f"{trainer.datamodule.signature}-{trainer.lightning_module.signature}"
        return self._signature
