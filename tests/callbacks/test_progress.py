"""What a person sees while a training runs where there is no terminal, and which figures of a validation that are."""

import math
from io import StringIO
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel, RandomDataset
from rich.console import Console

from lightning_arc.callbacks import progress
from lightning_arc.callbacks.progress import TrainingProgress, main_figures
from lightning_arc.callbacks.speed import Speed

VALIDATED = {
    "val/verify-output-from-examples/auroc": torch.tensor(0.91234),
    "val/ranking/verifier_top2": torch.tensor(0.5),
    "val/ranking/vote_top2": torch.tensor(0.25),
    "val/ranking/verifier_mrr": torch.tensor(0.75),
}


class FakeTrainer:
    is_global_zero, sanity_checking, global_step = True, False, 4
    callback_metrics = VALIDATED
    state = SimpleNamespace(fn="fit")

    def __init__(self, total=20):
        self.estimated_stepping_batches = total
        self.callbacks = [Speed()]
        self.callbacks[0].rate = 1234.5


def lines(monkeypatch, terminal=False, steps=4, total=20, refresh_rate=1, means=None):
    """What is printed of some steps of 20 seconds and a validation."""
    now, out, trainer = [0.0], StringIO(), FakeTrainer(total)
    monkeypatch.setattr(progress, "get_console", lambda: Console(file=StringIO(), force_terminal=terminal))
    bar = TrainingProgress(refresh_rate, console=Console(file=out, width=20), clock=lambda: now[0])
    module = SimpleNamespace(means=means or {})
    bar.setup(trainer, module, "fit")
    bar.on_train_start(trainer, module)
    for _ in range(steps):
        now[0] += 20.0
        trainer.global_step += 2
        bar.on_train_batch_end(trainer, module, {"loss": torch.tensor(2.5)}, None, 0)
    bar.on_validation_start(trainer, module)
    bar.on_validation_end(trainer, module)
    bar.on_train_end(trainer, module)
    bar.teardown(trainer, module, "fit")
    return out.getvalue().splitlines()


def test_without_a_terminal_a_line_comes_every_half_minute_and_one_after_a_validation(monkeypatch):
    assert lines(monkeypatch) == [
        "Training: begins at step 4 of 20",
        "Training: step 8 of 20, 40 s, about 120 s left, loss 2.500, 1,234 tokens/s",
        "Training: step 12 of 20, 80 s, about 80 s left, loss 2.500, 1,234 tokens/s",
        "Validation: at step 12, AUROC 0.912, top-2 50.0%, by votes 25.0%",
        "Training: ends at step 12, 80 s",
    ]


def test_the_mean_loss_and_the_end_are_shown_only_where_they_are_known(monkeypatch):
    found = lines(monkeypatch, total=math.inf, means={"train/loss": 1.25})
    assert found[1] == "Training: step 8 of any number, 40 s, loss 1.250, 1,234 tokens/s"
    assert found[-1] == "Training: ends at step 12, 80 s, loss 1.250, 1,234 tokens/s"


@pytest.mark.parametrize("settings", [{"terminal": True}, {"refresh_rate": 0}])
def test_there_are_no_lines_in_a_terminal_or_where_nothing_is_to_be_shown(monkeypatch, settings):
    assert lines(monkeypatch, **settings, steps=0) == []


def test_main_figures_are_those_that_a_validation_has():
    assert main_figures({}) == {}
    assert main_figures(VALIDATED) == {"AUROC": "0.912", "top-2": "50.0%", "by votes": "25.0%"}


def test_a_long_validation_without_a_terminal_prints_its_progress(monkeypatch, tmp_path):
    class Model(BoringModel):
        means = {}

    ticks, out = count(0, 40), StringIO()
    monkeypatch.setattr(progress, "get_console", lambda: Console(file=StringIO(), force_terminal=False))
    bar = TrainingProgress(1, console=Console(file=out, width=80), clock=lambda: float(next(ticks)))
    settings = {"max_steps": 2, "limit_val_batches": 3, "num_sanity_val_steps": 1, "enable_checkpointing": False}
    beside = {"logger": False, "accelerator": "cpu", "enable_model_summary": False, "default_root_dir": tmp_path}
    Trainer(**settings, **beside, callbacks=[bar]).fit(
        Model(), LightningDataModule.from_datasets(RandomDataset(32, 2), RandomDataset(32, 3))
    )
    found = [line for line in out.getvalue().splitlines() if line.startswith("Validation: batch")]
    assert found == [
        "Validation: batch 1 of 1, about 0 s left",  # before the training
        "Validation: batch 1 of 3, about 80 s left",
        "Validation: batch 2 of 3, about 60 s left",
        "Validation: batch 3 of 3, about 0 s left",
    ]
