"""Pools from any mix of sources."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from lightning_arc.arc import PairKey, PoolFile, read_candidates, read_tasks, same_grid
from lightning_arc.cli.pool import Generator, build_pool
from lightning_arc.errors import DataError

pytestmark = pytest.mark.slow

PAIR = {"input": [[0, 1], [1, 0]], "output": [[1, 0], [0, 2]]}
TASKS = {"a": {"train": [PAIR, PAIR], "test": [PAIR]}, "b": {"train": [PAIR], "test": [{"input": [[2]]}]}}
CANDIDATES = {"a": [[PAIR["output"], [[3]], [[3]], [[4]]]], "b": [[[[5]]]]}


@pytest.fixture
def given(tmp_path):
    (tmp_path / "tasks.json").write_text(json.dumps(TASKS))
    (tmp_path / "c.json").write_text(json.dumps(CANDIDATES))
    return {
        "tasks": str(tmp_path / "tasks.json"),
        "candidates": [str(tmp_path / "c.json")],
        "out": str(tmp_path / "pools" / "p.parquet"),
    }


def test_every_pair_is_filled_up_and_the_right_output_is_never_wrong(given):
    counts = build_pool(**given, wrong_per_pair=12, seed=1)
    pool, tasks = PoolFile(given["out"]), read_tasks(given["tasks"])
    assert list(pool) == [key for task in tasks.values() for key in task.keys()]  # noqa: SIM118
    for key in pool:
        right = tasks[key.task_id].pair(key).output
        if right is None:
            assert [(c.grid.tolist(), c.correct) for c in pool[key]] == [([[5]], None)]
        elif key != PairKey("b", "train", 0):  # the only demonstration of a task without a known test output
            assert sum(c.correct is False for c in pool[key]) == len(pool.wrong(key, right)) == 12
        for candidate in pool[key]:
            assert right is None or candidate.correct == same_grid(candidate.grid, right)
    test = pool[PairKey("a", "test", 0)]
    assert [(c.votes, c.sources, c.correct) for c in test[:3]] == [
        (1, ("c.json",), True),
        (2, ("c.json",), False),
        (1, ("c.json",), False),
    ]
    assert {c.sources for c in test[3:]} == {("distractors",)}
    assert (counts.pairs, counts.wrong, counts.right, counts.without) == (5, 36, 1, 1)
    assert counts.grids == 38 and counts.sources == Counter({"distractors": 34, "c.json": 4})
    again = {**given, "out": given["out"].replace("p.parquet", "q.parquet")}
    build_pool(**again, wrong_per_pair=12, seed=1)
    assert [[c.grid.tolist() for c in PoolFile(again["out"])[key]] for key in pool] == [
        [c.grid.tolist() for c in pool[key]] for key in pool
    ]


def test_pools_are_put_together_as_in_memory_and_a_solver_counts_once(given, tmp_path):
    pairs = [{"attempt_1": [[6]]}, {"attempt_1": [[7]]}, {"attempt_1": [[3]], "attempt_2": [[4]], "attempt_3": [[4]]}]
    (tmp_path / "verifier.json").write_text(json.dumps({"a": {"n_train": 2, "train": pairs}}))
    build_pool(**given)
    (tmp_path / "other.json").write_text(json.dumps({"a": [[[[4]], [[8]]]]}))
    files = [given["out"], str(tmp_path / "verifier.json"), str(tmp_path / "other.json"), given["candidates"][0]]
    build_pool(given["tasks"], str(tmp_path / "all.parquet"), files)
    pool, memory = PoolFile(tmp_path / "all.parquet"), read_candidates(files, read_tasks(given["tasks"]))
    for key in pool:
        assert [(c.grid.tolist(), c.votes, c.sources) for c in pool[key]] == [
            (c.grid.tolist(), c.votes, c.sources) for c in memory[key]
        ]
    votes = {str(c.grid.tolist()): c.votes for c in pool[PairKey("a", "test", 0)]}
    assert votes == {str(PAIR["output"]): 2, "[[3]]": 4, "[[4]]": 3, "[[8]]": 1}
    assert [c.votes for c in pool[PairKey("a", "train", 1)]] == [1]


def test_checkpoints_propose_candidates_for_demonstrations_too(given, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    options = ["--data.n_views=1", "--model.decoding.n_samples=4", "--trainer.accelerator=cpu"]
    counts = build_pool(**given, generators=[Generator("bundled", None, options)], wrong_per_pair=0)
    pool = PoolFile(given["out"])
    assert counts.sources["bundled"] >= 4 and counts.sources["c.json"] == 4
    assert any("bundled" in c.sources for c in pool[PairKey("a", "train", 1)])
    with pytest.raises(DataError, match="generators: ./none: cli.py predict ended with status 2"):
        build_pool(**{**given, "out": given["out"].replace("p.", "q.")}, generators=[Generator("./none")])
    assert "none: model_path must be a folder" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--wrong_per_pair=-1",), "wrong_per_pair is -1"),
        (("--seed=-1",), "seed is -1"),
        (("--out=pool.json",), "pool.json: expected a name that ends in .parquet"),
        (("--tasks=none.json",), "none.json: no such file"),
        (("--candidates=[none.json]",), "none.json: cannot be read"),
        (("--no_such=1",), "no_such"),
    ],
)
def test_a_wrong_option_ends_in_one_line_and_writes_nothing(repo_root, tmp_path, options, message):
    command = [sys.executable, "-m", "lightning_arc.cli", "pool", "--config", "configs/pool_training.yaml"]
    command += ["--generators=[]", f"--out={tmp_path / 'p.parquet'}", *options]
    ended = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, env=os.environ)
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert ended.returncode == 2 and len(errors) == 1 and message in errors[0] and "Traceback" not in ended.stderr
    assert not any(tmp_path.iterdir())
