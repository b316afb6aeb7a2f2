"""Progress of training and validation: a bar in a terminal, elsewhere a line every half minute."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from rich import get_console
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lightning_arc.callbacks.speed import Speed
from lightning_arc.model.typed import typed_model, typed_trainer
from lightning_arc.model.validation_metrics import VERIFY_TAG, WRITE_TAG

LINE_SECONDS = 30.0
"""Seconds between two lines where there is no terminal."""

LOSS_SECONDS = 1.0
"""Seconds between two readings of the loss for the bar, each of which makes the host wait for a GPU."""


class TrainingProgress(RichProgressBar):
    """Shows the steps of a training, its loss and speed, and the main figures of the last validation.

    Args:
        refresh_rate: updates of the bar a second; 0 shows neither a bar nor lines.
        leave: whether the bar of each epoch stays, and the next epoch has another one.
        console: where lines go; standard error if not given.
        clock: seconds from any point on.
    """

    def __init__(
        self,
        refresh_rate: int = 10,
        leave: bool = False,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(refresh_rate, leave)
        self._lines = console or Console(stderr=True)
        self._clock = clock
        self._began = self._last_line = self._last_reading = 0.0
        self._first, self._total = 0, math.inf
        self._validation_began = 0.0
        self._in_terminal = True
        self._validated: dict[str, str] = {}

    @property
    def is_enabled(self) -> bool:
        """Whether there is a bar."""
        return super().is_enabled and self._in_terminal

    @property
    def prints_lines(self) -> bool:
        """Whether lines are printed instead of a bar."""
        return super().is_enabled and not self._in_terminal

    @property
    def total_train_batches(self) -> float:
        """Steps of the whole training."""
        return self._total

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Choose between bar and lines by whether there is a terminal."""
        super().setup(trainer, pl_module, stage)
        console = get_console()
        self._in_terminal = console.is_terminal or console.is_jupyter
        self._validated = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count."""
        self._total, self._first = trainer.estimated_stepping_batches, trainer.global_step
        self._began = self._last_line = self._clock()
        super().on_train_start(trainer, pl_module)
        self._print_line(f"Training: begins at step {self._first:,} of {_count(self._total)}")

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go on with the same bar, unless each epoch has its own."""
        if self.is_disabled:
            return
        if self.train_progress_bar_id is not None and self._leave:
            self._stop_progress()
            self._init_progress(trainer)
        if self.train_progress_bar_id is None:
            self._initialize_train_progress_bar_id()
        self._update(self.train_progress_bar_id, trainer.global_step)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show a step where that is due."""
        now = self._clock()
        if self.prints_lines and now - self._last_line >= LINE_SECONDS:
            self._print_line(self._line(trainer, pl_module, outputs, now))
        if self.is_disabled:
            return
        if self.train_progress_bar_id is None:  # the run continues in the midst of an epoch
            self._initialize_train_progress_bar_id()
        self._update(self.train_progress_bar_id, trainer.global_step)
        if self._metric_component is not None and now - self._last_reading >= LOSS_SECONDS:
            self._last_reading = now
            self._metric_component.update(self._figures(trainer, pl_module, outputs) | self._validated)
        self.refresh()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the last figures."""
        figures = {} if not typed_model(pl_module).means else self._figures(trainer, pl_module, None)
        if self._metric_component is not None and self.is_enabled:
            self._metric_component.update(figures | self._validated)
            self.refresh(hard=True)
        taken = self._clock() - self._began
        self._print_line(_joined(f"Training: ends at step {trainer.global_step:,}", f"{taken:,.0f} s", _words(figures)))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the time of a validation apart."""
        self._validation_began = self._last_line = self._clock()
        super().on_validation_start(trainer, pl_module)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *rest: Any
    ) -> None:
        """Show a batch where that is due."""
        super().on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, *rest)
        now = self._clock()
        if self.prints_lines and now - self._last_line >= LINE_SECONDS:
            counts = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
            total = counts[rest[0] if rest else 0]
            left = time_left(batch_idx + 1, 0, total, now - self._validation_began)
            self._print_line(_joined(f"Validation: batch {batch_idx + 1:,} of {_count(total)}", left))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the main figures beside the loss."""
        self.reset_dataloader_idx_tracker()
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self._validated = main_figures(trainer.callback_metrics)
        if self.is_enabled and self._metric_component is not None:
            self._metric_component.update(self._figures(trainer, pl_module, None) | self._validated)
        self._print_line(_joined(f"Validation: at step {trainer.global_step:,}", _words(self._validated)))

    def configure_columns(self, trainer: L.Trainer) -> list[ProgressColumn]:
        """Return narrow columns, which leave room for the figures."""
        left = TimeRemainingColumn(compact=True)
        parts = [TextColumn("{task.description}"), BarColumn(bar_width=16), MofNCompleteColumn(), TimeElapsedColumn()]
        return [*parts, TextColumn("left"), left]

    def _update_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Do nothing: the figures are updated only when that is due."""

    def _get_train_description(self, current_epoch: int) -> str:
        return "Training"

    def _figures(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any) -> dict[str, str]:
        """Return the loss (the mean that was logged last, else that of a step) and the speed."""
        loss = typed_model(pl_module).means.get("train/loss")
        if loss is None and outputs is not None:
            loss = float(outputs["loss"])
        rate = next((c.rate for c in typed_trainer(trainer).callbacks if isinstance(c, Speed)), 0.0)
        figures = {} if loss is None else {"loss": f"{loss:.3f}"}
        return figures | ({"tokens/s": f"{rate:,.0f}"} if rate else {})

    def _line(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, now: float) -> str:
        step = trainer.global_step
        left = time_left(step, self._first, self._total, now - self._began)
        how_far = f"Training: step {step:,} of {_count(self._total)}"
        return _joined(how_far, f"{now - self._began:,.0f} s", left, _words(self._figures(trainer, pl_module, outputs)))

    def _print_line(self, line: str) -> None:
        if self.prints_lines:
            self._last_line = self._clock()
            self._lines.print(line, highlight=False, markup=False, soft_wrap=True)


def main_figures(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the main metrics of a validation as text, by short names.

    Args:
        metrics: the metrics by their logged names.
    """
    forms = {
        f"val/{VERIFY_TAG}/loss": ("verdict loss", "{:.3f}"),
        f"val/{VERIFY_TAG}/auroc": ("AUROC", "{:.3f}"),
        f"val/{WRITE_TAG}/loss": ("output loss", "{:.3f}"),
        "val/ranking/verifier_top2": ("top-2", "{:.1%}"),
        "val/ranking/vote_top2": ("by votes", "{:.1%}"),
    }
    known = [(title, form, metrics[name]) for name, (title, form) in forms.items() if name in metrics]
    return {title: form.format(float(value)) for title, form, value in known}


def _words(figures: Mapping[str, str]) -> str:
    return ", ".join(f"{value} {name}" if "/" in name else f"{name} {value}" for name, value in figures.items())


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _count(total: float) -> str:
    return "any number" if math.isinf(total) else f"{int(total):,}"


def time_left(done: int, first: int, total: float, seconds: float) -> str:
    """Return the estimated remaining time in words; an empty text where it is not known.

    Args:
        done: amount of finished work.
        first: amount that was finished when ``seconds`` began.
        total: amount of all work, perhaps infinite.
        seconds: seconds since then.
    """
    if done <= first or math.isinf(total):
        return ""
    return f"about {seconds / (done - first) * (total - done):,.0f} s left"
