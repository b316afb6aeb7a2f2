"""Runs, on resuming, a validation that was due when the run was interrupted, which Lightning would skip."""

from typing import Any

import lightning as L


class DueValidation(L.Callback):
    """Saves in each checkpoint whether a validation is due after it, and runs that when training is resumed."""

    def __init__(self) -> None:
        self._trainer: L.Trainer | None = None
        self._validated: int | None = None
        self._validating = self._is_due = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Begin anew."""
        self._trainer, self._validated, self._validating = trainer, None, False

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember that a validation has begun."""
        self._validating = not trainer.sanity_checking

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember that a validation has ended, so that it is no longer due."""
        if self._validating:
            self._validating, self._validated = False, trainer.fit_loop.epoch_loop.total_batch_idx

    def state_dict(self) -> dict[str, Any]:
        """Return whether a validation is due."""
        assert self._trainer is not None  # which asks for it
        loop, fetcher = self._trainer.fit_loop.epoch_loop, self._trainer.fit_loop._data_fetcher
        is_done = self._validated == loop.total_batch_idx
        is_next = fetcher is not None and loop._should_check_val_fx(fetcher)
        return {"validation_due": bool((self._is_due or self._validating or is_next) and not is_done)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember whether a validation is due."""
        self._is_due = state["validation_due"]

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Make a checkpoint that is saved during a validation equal to one from before it."""
        if self._validating and not self._is_due:
            for progress in ("total", "current"):
                batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"][progress]
                batches["completed"] = batches["processed"] - 1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Run the validation that is due, as Lightning's loop does between two steps."""
        if not self._is_due:
            return
        loop, connector = trainer.fit_loop.epoch_loop.val_loop, trainer._logger_connector
        first = connector._first_loop_iter
        trainer.validating, loop.restarting = True, False
        loop.run()
        trainer.training = True
        connector._first_loop_iter = first
        self._is_due = False
