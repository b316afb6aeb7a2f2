"""Ends a command in good order at SIGTERM (job schedulers, spot machines) and SIGINT (Ctrl-C)."""

import os
import signal
import subprocess
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_arc.data.workers import end_with_parent
from lightning_arc.errors import Stopped
from lightning_arc.model.typed import typed_trainer

SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
"""Signals by their names in messages."""

CHECKPOINT = "interrupted.ckpt"
"""Name of the checkpoint that is saved at a signal, beside the others."""

GRACE = 10.0
"""Seconds that other processes of this machine have to end by themselves."""


class Interruption(L.Callback):
    """Takes SIGTERM and SIGINT in place of Lightning, which at SIGTERM saves nothing and does not end a prediction.

    Training ends after the running step, in all processes after the same one, with a checkpoint. Everything else ends
    at once; what a prediction has finished is in its journal. The exit status is 143 after SIGTERM and 130 after
    SIGINT. A second SIGINT ends everything at once.
    """

    def __init__(self) -> None:
        self._trainer: L.Trainer | None = None
        self._received: int | None = None
        self._trains = False

    def listen(self) -> None:
        """Handle the signals from now on."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._receive)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Begin to listen; let processes that Lightning started end with the first one."""
        self._trainer, self._received, self._trains = trainer, None, False
        self.listen()
        if is_launched_child(trainer):
            end_with_parent()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save a checkpoint at a signal from now on."""
        self._trains = True

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and end after a whole step, if any process got a signal."""
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            number = self._received or 0
            if trainer.world_size > 1:  # alone, the host need not wait for a GPU
                received = torch.tensor(number, device=trainer.strategy.root_device)
                number = int(trainer.strategy.reduce(received, reduce_op="max"))
            if number:
                self._save_and_stop(trainer, number)

    def on_validation_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        """Save and end during a validation, which is begun anew on resuming; several processes complete it first."""
        if self._trains and self._received and trainer.world_size == 1:
            self._save_and_stop(trainer, self._received)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save nothing at a signal from now on, as the last checkpoint holds everything."""
        self._trains = False
        if self._received:
            raise self._stopped(self._received)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """End the processes that Lightning started; without this one they would wait for ever."""
        self._trains = False
        others: list[subprocess.Popen] = getattr(trainer.strategy.launcher, "procs", [])
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in others:
                process.send_signal(number)
            for process in others:
                try:
                    process.wait(GRACE)
                except subprocess.TimeoutExpired:
                    break

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            if number == signal.SIGINT:
                os._exit(128 + number)
            return
        self._received = number
        if not self._trains:
            raise self._stopped(number)
        if self._trainer is not None and self._trainer.is_global_zero:  # print would fail in the midst of another print
            name = SIGNALS[signal.Signals(number)]
            text = f"\n{name}: saving a checkpoint after the running step; Ctrl-C ends at once\n"
            os.write(2, text.encode())

    def _save_and_stop(self, trainer: L.Trainer, number: int) -> None:
        self._received = number
        if trainer.checkpoint_callback is None:
            raise self._stopped(number)
        trainer.save_checkpoint(checkpoint_folder(trainer) / CHECKPOINT)
        raise self._stopped(number)

    def _stopped(self, number: int) -> Stopped:
        trainer, name = self._trainer, SIGNALS[signal.Signals(number)]
        if trainer is not None and is_launched_child(trainer):
            return Stopped(0)  # the first process counts; Lightning would kill it at any other status
        status = 128 + number
        if trainer is None or not trainer.is_global_zero:
            return Stopped(status, None if trainer else f"stopped by {name}")
        if trainer.state.fn == "predict":
            root = trainer.default_root_dir
            return Stopped(status, f"stopped by {name}: go on with the same command, which keeps the answers in {root}")
        if trainer.state.fn != "fit":
            return Stopped(status, f"stopped by {name}")
        text = f"stopped by {name} at step {trainer.global_step}: "
        last = typed_trainer(trainer).last_checkpoint
        if last is None:
            return Stopped(status, text + "there is no checkpoint")
        return Stopped(status, text + f"go on with the same command and --ckpt_path {last}")


def checkpoint_folder(trainer: L.Trainer) -> Path:
    """Return where a training's checkpoints are."""
    folders = [c.dirpath for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.dirpath]
    return Path(folders[0]) if folders else Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints"


def is_launched_child(trainer: L.Trainer) -> bool:
    """Whether Lightning's first process on this machine started this one."""
    environment = trainer._accelerator_connector.cluster_environment
    return isinstance(environment, LightningEnvironment) and trainer.local_rank != 0
