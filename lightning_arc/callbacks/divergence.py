"""Stops training that has diverged before a checkpoint of it is written."""

from pathlib import Path
from typing import Any

import lightning as L
import torch

from lightning_arc.callbacks.interruption import is_launched_child
from lightning_arc.errors import DataError, Stopped
from lightning_arc.model.finite import check_finite, not_finite
from lightning_arc.model.typed import typed_model, typed_trainer

NEVER = 2**62
"""The step at which a loss that is always finite stops being so."""


class Divergence(L.Callback):
    """Ends training at the first step whose loss is not finite; refuses to train or validate weights that are not.

    On a CPU each step's loss is checked. On a GPU, where that would make the host wait, losses are checked every
    ``log_every_n_steps`` steps, before a validation and before a checkpoint is written; the weights themselves are
    checked before both and at the end. An infinite gradient under a gradient scaler does not count: the scaler skips
    the step, and loss and weights stay finite. All processes stop at the same step.
    """

    def __init__(self) -> None:
        self._first = torch.full((), NEVER, dtype=torch.int64)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse to train from weights that are not finite."""
        self._first = torch.full_like(self._first, NEVER, device=pl_module.device)
        check_finite(pl_module.named_parameters(), typed_model(pl_module).source)
        typed_trainer(trainer).last_checkpoint = trainer.ckpt_path

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse to validate weights that are not finite."""
        if trainer.state.fn == "fit":
            self.check(trainer, pl_module)
        else:
            check_finite(pl_module.named_parameters(), typed_model(pl_module).source)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember the first loss that is not finite; check for one in the steps where that costs little."""
        step = torch.full_like(self._first, trainer.global_step).where(~outputs["loss"].isfinite(), NEVER)
        self._first = torch.minimum(self._first, step)
        alone_on_cpu = trainer.world_size == 1 and pl_module.device.type == "cpu"
        if alone_on_cpu or trainer.global_step % typed_trainer(trainer).log_every_n_steps == 0:
            self._check_loss(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the last steps."""
        self.check(trainer, pl_module)

    def check(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check all losses so far, and the weights.

        Raises:
            DataError: if some are not finite; in processes that Lightning started beside this one, `Stopped`.
        """
        self._check_loss(trainer)
        names = not_finite((name, p) for name, p in pl_module.named_parameters() if p.requires_grad)
        if names:
            what = f"{len(names)} weights are not finite numbers, {names[0]} among them"
            raise _diverged(trainer, f"step {trainer.global_step}: {what}")

    def _check_loss(self, trainer: L.Trainer) -> None:
        first = int(trainer.strategy.reduce(self._first.clone(), reduce_op="min"))
        if first != NEVER:
            raise _diverged(trainer, f"step {first}: the loss is not a finite number")


def _diverged(trainer: L.Trainer, what: str) -> BaseException:
    if is_launched_child(trainer):
        return Stopped(0)
    last = typed_trainer(trainer).last_checkpoint
    kept = f"the last good checkpoint is {last}" if last and Path(last).exists() else "no checkpoint was written before"
    tried = "try a lower model.learning_rate"
    if str(trainer.precision).startswith("16"):
        tried += ", or trainer.precision bf16-mixed"
    return DataError(f"{trainer.default_root_dir}: {what}; {kept}; {tried}")
