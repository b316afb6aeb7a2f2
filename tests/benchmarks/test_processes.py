"""Is a small model trained faster by two processes of one thread than by one process of two? `make bench`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_arc.environment import available_cpus

from .ways import table

ROOT = Path(__file__).parents[2]
STEPS = 30
"""Steps of each training, of which the speed of the last ten counts."""


def tokens_per_second(folder: Path, processes: int, threads: int, prompts: int) -> float:
    """Train the bundled model's shape with as many prompts a step in all; return the speed that `fit` logs."""
    command = [sys.executable, "cli.py", "fit", "--config", "configs/fit_bundled.yaml"]
    command += [
        "--trainer.max_steps",
        str(STEPS),
        "--trainer.log_every_n_steps",
        "10",
        "--trainer.limit_val_batches",
        "0",
    ]
    command += ["--data.batch_size", str(prompts // processes), "--trainer.default_root_dir", str(folder)]
    command += ["--trainer.devices", str(processes)] + (["--trainer.strategy", "ddp"] if processes > 1 else [])
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    (events,) = folder.rglob("events.out.tfevents.*")
    log = EventAccumulator(str(events))
    log.Reload()
    return log.Scalars("usage/tokens_per_second")[-1].value


def test_processes_against_threads(tmp_path):
    if (cpus := available_cpus()) < 2:
        pytest.skip("one CPU has nothing to share out")
    rows, speeds = [], []
    for processes, threads in ((1, cpus), (cpus, 1)):
        speeds.append(tokens_per_second(tmp_path / str(processes), processes, threads, prompts=6 * cpus))
        rows.append((str(processes), str(threads), f"{speeds[-1]:,.0f}", f"{speeds[-1] / speeds[0]:.2f}"))
    table("training a small model", ("processes", "threads of each", "tokens/s", "times"), rows)
    assert speeds[1] > 0.8 * speeds[0]
