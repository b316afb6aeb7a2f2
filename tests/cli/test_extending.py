"""The example of docs/extending.md, run as it stands there."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_a_ranker_of_somebodys_own_ranks(
    repo_root: Path, tmp_path: Path, cli: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (repo_root / "docs" / "extending.md").read_text(), re.S)
    (tmp_path / "cautious.py").write_text(code)
    pair = {"input": [[0, 1], [1, 0]], "output": [[1, 0], [0, 1]]}
    (tmp_path / "tasks.json").write_text(json.dumps({"t": {"train": [pair, pair], "test": [pair]}}))
    (tmp_path / "candidates.json").write_text(json.dumps({"t": [[[[1, 0], [0, 1]], [[3]], [[1, 1]]]]}))
    monkeypatch.syspath_prepend(tmp_path)
    printed = cli(
        *("predict", "--config=configs/rank.yaml", "--model.ranker=cautious.Cautious", "--data.n_views=1"),
        *(f"--data.{name}={tmp_path / name}.json" for name in ("tasks", "candidates")),
        *("--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path / 'out'}"),
    )
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["chosen"] == "cautious"
    assert "cautious *" in printed
