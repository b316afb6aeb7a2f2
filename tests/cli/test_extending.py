"""The example of docs/extending.md, run as it stands there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_a_ranker_of_somebodys_own_ranks(repo_root: Path, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (repo_root / "docs" / "extending.md").read_text(), re.S)
    (tmp_path / "cautious.py").write_text(code)
    pair = {"input": [[0, 1], [1, 0]], "output": [[1, 0], [0, 1]]}
    (tmp_path / "tasks.json").write_text(json.dumps({"t": {"train": [pair, pair], "test": [pair]}}))
    (tmp_path / "candidates.json").write_text(json.dumps({"t": [[[[1, 0], [0, 1]], [[3]], [[1, 1]]]]}))
    command = [
        sys.executable,
        "-m",
        "lightning_arc.cli",
        "predict",
        "--config=configs/rank.yaml",
        "--trainer.accelerator=cpu",
    ]
    command += [
        "--model.ranker=cautious.Cautious",
        "--data.n_views=1",
        f"--trainer.default_root_dir={tmp_path / 'out'}",
    ]
    command += [f"--data.{name}={tmp_path / name}.json" for name in ("tasks", "candidates")]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{repo_root}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["chosen"] == "cautious"
    assert "cautious *" in done.stdout
