"""Signals to the whole command, as a job scheduler or a person sends them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

FIT = (
    *("fit", "--config", "configs/fit.yaml", "--data.max_seq_len=512", "--data.batch_size=2"),
    "--model.scratch={hidden_size: 16, layers: 1, heads: 2, kv_heads: 1, intermediate_size: 16}",
    *("--data.samples_per_epoch=16", "--trainer.num_sanity_val_steps=0", "--trainer.limit_val_batches=0"),
    *("--trainer.accelerator=cpu", "--trainer.callbacks=lightning.pytorch.callbacks.ModelCheckpoint"),
    *("--trainer.callbacks.every_n_train_steps=2", "--trainer.max_steps=100000"),
)
"""A training whose settings name none of the callbacks that take signals."""


def interrupted(root: Path, number: int, when: Callable[[], bool], *arguments: str) -> tuple[int, str]:
    """Send a signal to a command and all that it started; return its status and the last line of its errors."""
    process = subprocess.Popen(
        [sys.executable, "cli.py", *map(str, arguments)],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + 120
    while not when() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    return process.returncode, err.splitlines()[-1]


def saved(folder: Path) -> bool:
    """Whether a training has saved its first checkpoint."""
    return any(folder.rglob("*.ckpt"))


def test_sigterm_ends_a_training_with_workers_and_a_checkpoint_that_it_goes_on_from(repo_root, tmp_path):
    arguments = (*FIT, "--data.num_workers=2", f"--trainer.default_root_dir={tmp_path}")
    status, line = interrupted(repo_root, signal.SIGTERM, lambda: saved(tmp_path), *arguments)
    (path,) = tmp_path.rglob("interrupted.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    step = checkpoint["global_step"]
    assert status == 143
    assert line == f"stopped by SIGTERM at step {step}: go on with the same command and --ckpt_path {path}"
    assert checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"] == [{"samples": 2 * step}]


def test_two_processes_end_together_at_ctrl_c(repo_root, tmp_path):
    arguments = (*FIT, f"--trainer.default_root_dir={tmp_path}")
    two = ("--trainer.devices=2", "--trainer.strategy=ddp")
    status, line = interrupted(repo_root, signal.SIGINT, lambda: saved(tmp_path), *arguments, *two)
    (path,) = tmp_path.rglob("interrupted.ckpt")
    assert status == 130 and line.endswith(f"go on with the same command and --ckpt_path {path}")
