"""How much longer two rankings take that run side by side on the same cores: `make bench`."""

import json
import os
import subprocess
import sys
from pathlib import Path

from .ways import table

ROOT = Path(__file__).parents[2]


def seconds(folder: Path, n: int, environment: dict[str, str]) -> float:
    """Rank the bundled test inputs in ``n`` processes at once; return the longest time that one of them reports."""
    folders = [folder / str(i) for i in range(n)]
    command = [sys.executable, "cli.py", "predict", "--config", "configs/rank.yaml", "--data.n_views=1"]
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
    for policy in ("PASSIVE", "ACTIVE"):
        environment = {"OMP_WAIT_POLICY": policy}
        alone = seconds(tmp_path / policy / "alone", 1, environment)
        both = seconds(tmp_path / policy / "both", 2, environment)
        rows.append((policy, f"{alone:.1f}", f"{both:.1f}", f"{both / alone:.1f}"))
    table("two rankings side by side", ("OMP_WAIT_POLICY", "alone, s", "side by side, s", "times"), rows)
    assert float(rows[0][-1]) < 3
