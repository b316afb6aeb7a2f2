"""A Lightning trainer that leaves nothing torn, diverged or lost behind, however it ends."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from lightning_arc.callbacks.divergence import Divergence
from lightning_arc.callbacks.due_validation import DueValidation
from lightning_arc.callbacks.interruption import Interruption
from lightning_arc.callbacks.speed import Speed
from lightning_arc.data.module import ArcDataModule
from lightning_arc.inference.loop import PredictionLoop
from lightning_arc.model.checkpoint_io import WholeFileCheckpointIO
from lightning_arc.model.typed import typed_model
from lightning_arc.reporting.validation import print_validation


class SafeTrainer(L.Trainer):
    """Lightning's trainer with callbacks that no setting removes.

    Training stops when it diverges (`Divergence`), saves and ends at signals (`Interruption`), catches up on a
    validation that an interruption prevented (`DueValidation`), and logs its speed (`Speed`). Checkpoints are written
    whole or not at all, unless another ``CheckpointIO`` is given. A prediction is a `PredictionLoop`.
    """

    callbacks: list[L.Callback]
    datamodule: ArcDataModule

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.divergence, self.interruption = Divergence(), Interruption()
        # The last of these may end training, so they come after those that must have seen the step.
        self.callbacks[:0] = [Speed(), DueValidation(), self.divergence, self.interruption]
        self._signal_connector = _Signals(self)
        self.predict_loop = PredictionLoop(self)
        self.validate_loop._print_results = self._print_validation  # type: ignore[method-assign]  # a table of our own
        self.last_checkpoint: str | Path | None = None
        if type(self.strategy.checkpoint_io) is TorchCheckpointIO:
            self.strategy.checkpoint_io = WholeFileCheckpointIO()

    def save_checkpoint(
        self, filepath: str | Path, weights_only: bool | None = None, storage_options: Any = None
    ) -> None:
        """Save a checkpoint, unless the training has diverged; logs are flushed to disk first.

        Raises:
            DataError: if the training has diverged, or the file cannot be written.
        """
        if self.training or self.validating:
            self.divergence.check(self, self.lightning_module)
            typed_model(self.lightning_module).log_means()
        for logger in self.loggers:
            logger.save()
        super().save_checkpoint(filepath, weights_only, storage_options)
        self.last_checkpoint = str(filepath)

    def _print_validation(self, results: list[dict[str, Any]], stage: str) -> None:
        """Print the results of ``validate`` in place of Lightning's table."""
        found = {name: float(value) for result in results for name, value in result.items()}
        validation = self.datamodule.validation
        if found and validation is not None:
            tasks = [episode.key.task_id for episode in validation.episodes]
            print_validation(found, typed_model(self.lightning_module).metrics.samples, tasks)


class _Signals(_SignalConnector):
    """Lightning's handlers without the one for SIGTERM, which ends only training and saves no checkpoint.

    The one with which SLURM requeues a job stays.
    """

    def register_signal_handlers(self) -> None:
        super().register_signal_handlers()
        assert isinstance(self.trainer, SafeTrainer)
        self.trainer.interruption.listen()
