"""How much longer two rankings take that run side by side on the same cores: `make bench`."""

import json
import os
import subprocess
import sys
from pathlib import Path

from .ways import table

ROOT = Path(__file__).parents[2]

WAYS = {
    "as it is": {},
    "sleep at once": {"OMP_WAIT_POLICY": "PASSIVE"},
    "spin longer": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"},
}


def seconds(folder: Path, n: int, environment: dict[str, str]) -> float:
    """Rank the bundled test inputs in ``n`` processes at once; return the longest time that one of them reports."""
    folders = [folder / str(i) for i in range(n)]
    small = ["--data.candidates=[bundled:evaluation_60.json]", "--data.n_views=1", "--data.max_seq_len=1024"]
    command = [sys.executable, "cli.py", "predict", "--config", "configs/rank.yaml", *small]
    processes = [
        subprocess.Popen(
            [*command, f"--trainer.default_root_dir={out}"],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for out in folders
    ]
    assert [process.wait() for process in processes] == [0] * n
    metrics = [json.loads((out / "metrics.json").read_text()) for out in folders]
    return max(m["methods"]["verifier"]["seconds"] for m in metrics)


def test_two_runs_side_by_side_take_their_share_of_the_cores(tmp_path):
    rows = []
    for name, environment in WAYS.items():
        alone = seconds(tmp_path / name / "alone", 1, environment)
        both = seconds(tmp_path / name / "both", 2, environment)
        rows.append((name, f"{alone:.1f}", f"{both:.1f}", f"{both / alone:.1f}"))
    table("two rankings side by side", ("waiting threads", "alone, s", "side by side, s", "times"), rows)
    assert float(rows[0][-1]) < 3
