"""Training as it ends: of its own accord, diverged, interrupted, or with a full disk."""

import errno
import json
import math
import os
import signal
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_arc.callbacks.export import ExportModel
from lightning_arc.cli.trainer import SafeTrainer
from lightning_arc.data.module import ArcDataModule
from lightning_arc.data.sources import DatasetConfig
from lightning_arc.errors import DataError, Stopped
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.load import Scratch

SIZE = Scratch(hidden_size=16, layers=1, heads=2, kv_heads=1, intermediate_size=16)
PAIR = {"input": [[0, 1], [1, 0]], "output": [[1, 0], [0, 1]]}


@pytest.fixture(autouse=True)
def signals():
    """Let handlers be as they were before behind each test; checkpoints hold the settings of a model as they are."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with torch.serialization.safe_globals([Scratch]):
        yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def data(tmp_path) -> ArcDataModule:
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps({f"t{i}": {"train": [PAIR] * 2, "test": [PAIR]} for i in range(6)}))
    train, val = (DatasetConfig(str(path), prompts=["verify-output-from-examples-v1"]) for _ in range(2))
    return ArcDataModule(
        train_datasets=[train], val_dataset=val, allow_leaks=True, batch_size=2, samples_per_epoch=16, max_seq_len=512
    )


class Noted(L.Callback):
    """Notes validations and steps, and does something at one of them."""

    def __init__(self, at=None, do=None) -> None:
        self.at, self.do = at, do
        self.validated: list[int] = []
        self.trained: list[int] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.trained.append(trainer.global_step + 1)
        if self.at == ("train", trainer.global_step + 1):
            self.at = None
            self.do(trainer)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.at == ("validate", trainer.global_step) and batch_idx == 1:
            self.do(trainer)

    def on_validation_end(self, trainer, pl_module):
        self.validated.append(trainer.global_step)


def trainer(folder: Path, *callbacks: L.Callback, every: int = 2, **options) -> SafeTrainer:
    saving = ModelCheckpoint(dirpath=folder / "saved", every_n_train_steps=every, save_top_k=-1, save_last=True)
    settings = {"max_steps": 6, "val_check_interval": 3, "check_val_every_n_epoch": None, "logger": False}
    return SafeTrainer(
        default_root_dir=str(folder),
        callbacks=[saving, *callbacks],
        accelerator="cpu",
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings | options,
    )


def model(**settings) -> ArcModel:
    L.seed_everything(0, verbose=False)
    return ArcModel(scratch=SIZE, **{"warmup_steps": 1} | settings)


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def test_training_stops_at_the_first_loss_that_is_not_finite_and_keeps_the_last_good_checkpoint(data, tmp_path):
    def spoil(trainer):
        with torch.no_grad():
            next(trainer.lightning_module.parameters()).fill_(math.nan)

    noted = Noted(("train", 5), spoil)
    with pytest.raises(DataError) as error:
        trainer(tmp_path, noted, ExportModel(), max_steps=100).fit(model(), data)
    kept = tmp_path / "saved" / "last.ckpt"
    assert str(error.value) == (
        f"{tmp_path}: step 5: the loss is not a finite number; the last good checkpoint is {kept}; "
        "try a lower model.learning_rate"
    )
    assert noted.trained[-1] == 5 and not (tmp_path / "model").exists()
    assert torch.load(kept, weights_only=True)["global_step"] == 4
    assert all(weight.isfinite().all() for weight in weights(kept).values())


def test_weights_that_are_not_finite_are_never_saved_even_where_the_loss_still_is(data, tmp_path):
    class Overflow(L.Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            if trainer.global_step == 1:  # in the second step, whose loss was finite
                next(pl_module.parameters()).data.fill_(math.inf)

    with pytest.raises(DataError, match=r"step 2: 1 weights are not finite numbers, .*; no checkpoint was written"):
        trainer(tmp_path, Overflow()).fit(model(), data)
    assert saved(tmp_path) == ["tasks.json"]


def test_a_skipped_step_with_infinite_gradients_is_no_divergence(data, tmp_path):
    class Scaler(L.Callback):
        """A gradient scaler's part: infinite gradients are found, and the step does nothing."""

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            for p in pl_module.parameters():
                p.grad = None

        def on_after_backward(self, trainer, pl_module):
            next(p for p in pl_module.parameters() if p.grad is not None).grad.fill_(math.inf)

    trainer(tmp_path, Scaler()).fit(model(), data)
    assert "last.ckpt" in saved(tmp_path)


@pytest.mark.parametrize("command", ["fit", "validate"])
def test_weights_that_are_not_finite_are_not_trained_or_validated(data, tmp_path, command):
    trainer(tmp_path, max_steps=2).fit(model(), data)
    path = tmp_path / "saved" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    name = next(iter(checkpoint["state_dict"]))
    checkpoint["state_dict"][name][0] = math.nan
    torch.save(checkpoint, path)
    with pytest.raises(DataError, match=f"last.ckpt: 1 of its weights are not finite numbers, {name} among them"):
        getattr(trainer(tmp_path / "again"), command)(model(), data, ckpt_path=str(path), weights_only=True)


@pytest.mark.parametrize(("number", "status", "accumulated"), [(signal.SIGTERM, 143, 2), (signal.SIGINT, 130, 1)])
def test_a_signal_saves_behind_the_step_and_training_goes_on_as_if_it_had_not_come(
    data, tmp_path, number, status, accumulated
):
    settings = {"accumulate_grad_batches": accumulated}
    trainer(tmp_path / "whole", **settings).fit(model(), data)
    noted = Noted(("train", 4), lambda _: os.kill(os.getpid(), number))
    with pytest.raises(Stopped) as stopped:
        trainer(tmp_path / "cut", noted, every=100, **settings).fit(model(), data)
    path = tmp_path / "cut" / "saved" / "interrupted.ckpt"
    name = {143: "SIGTERM", 130: "Ctrl-C"}[status]
    assert stopped.value.code == status and stopped.value.message == (
        f"stopped by {name} at step 4: go on with the same command and --ckpt_path {path}"
    )
    assert noted.trained[-1] == 4 and saved(tmp_path / "cut") == ["interrupted.ckpt"]
    trainer(tmp_path / "cut", **settings).fit(model(), data, ckpt_path=str(path), weights_only=True)
    ends = [weights(tmp_path / name / "saved" / "last.ckpt") for name in ("whole", "cut")]
    assert all(torch.equal(weight, ends[1][name]) for name, weight in ends[0].items())


EPOCHS = {"val_check_interval": None, "check_val_every_n_epoch": 1, "max_steps": 12}


@pytest.mark.parametrize(
    ("settings", "place"),
    [({}, ("train", 3)), ({}, ("validate", 3)), (EPOCHS, ("train", 8)), (EPOCHS, ("validate", 8))],
)
def test_a_validation_that_was_due_when_a_run_ended_is_run_on_resuming(data, tmp_path, settings, place):
    step = place[1]
    whole = Noted()
    trainer(tmp_path / "whole", whole, **settings).fit(model(), data)
    with pytest.raises(Stopped):
        cut = Noted(place, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        trainer(tmp_path / "cut", cut, every=100, **settings).fit(model(), data)
    assert cut.validated == [] and whole.validated[0] == step
    path, again = tmp_path / "cut" / "saved" / "interrupted.ckpt", Noted()
    trainer(tmp_path / "cut", again, **settings).fit(model(), data, ckpt_path=str(path), weights_only=True)
    assert again.validated == whole.validated
    assert again.trained == whole.trained[step:]
    ends = [torch.load(tmp_path / name / "saved" / "last.ckpt", weights_only=True) for name in ("whole", "cut")]
    assert all(torch.equal(weight, ends[1]["state_dict"][name]) for name, weight in ends[0]["state_dict"].items())
    assert ends[0]["epoch"] == ends[1]["epoch"]


def test_a_validation_that_was_run_is_not_run_again_on_resuming(data, tmp_path):
    class Last(L.Callback):
        def on_validation_end(self, trainer, pl_module):
            trainer.save_checkpoint(tmp_path / "behind.ckpt", weights_only=False)

    trainer(tmp_path, Last(), max_steps=3).fit(model(), data)
    again = Noted()
    path = str(tmp_path / "behind.ckpt")
    trainer(tmp_path, again).fit(model(), data, ckpt_path=path, weights_only=True)
    assert again.validated == [6] and again.trained == [4, 5, 6]


def test_what_was_logged_up_to_a_checkpoint_is_on_disk_before_it(data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}

    def read_log(trainer):
        log = EventAccumulator(trainer.logger.log_dir)
        log.Reload()
        found.update({tag: log.Scalars(tag)[-1].step for tag in log.Tags()["scalars"]})
        raise KeyError("as if it were killed here")

    with pytest.raises(KeyError):
        trainer(tmp_path, Noted(("train", 5), read_log), logger=TensorBoardLogger(str(tmp_path))).fit(model(), data)
    assert found["train/verify-output-from-examples/loss"] == 4  # as of the checkpoint of step 4
    assert found["train/loss"] == found["train/gradient_norm"] == 4
    assert found["val/verify-output-from-examples/loss"] == 3


def test_a_full_disk_ends_in_one_line_and_leaves_the_checkpoint_before(data, tmp_path, monkeypatch):
    def full(checkpoint, file):
        file.write(b"begun")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill(_):
        monkeypatch.setattr(torch, "save", full)

    with pytest.raises(DataError, match=rf"^{tmp_path}/saved/.*\.ckpt: cannot be written: No space left on device$"):
        trainer(tmp_path, Noted(("train", 3), fill)).fit(model(), data)
    monkeypatch.undo()
    assert saved(tmp_path / "saved") == ["epoch=0-step=2.ckpt", "last.ckpt"]
    assert torch.load(tmp_path / "saved" / "last.ckpt", weights_only=True)["global_step"] == 2


def test_a_checkpoint_takes_its_place_whole(data, tmp_path, monkeypatch):
    replaced = []

    def replace(source, target):
        replaced.append((torch.load(source, weights_only=True)["global_step"], Path(target).name))
        os.rename(source, target)

    monkeypatch.setattr("lightning_arc.arc.io.files.os.replace", replace)
    trainer(tmp_path, max_steps=2).fit(model(), data)
    assert replaced == [(2, "epoch=0-step=2.ckpt"), (2, "last.ckpt")]
