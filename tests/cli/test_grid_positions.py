"""Grid positions on the command line: a model brings them wherever it is used, and nothing else needs to be given."""

import json
from pathlib import Path

import pytest

from . import helpers
from .helpers import TASKS

SMALL = (
    *helpers.SMALL,
    "--trainer.max_steps=1",
    "--trainer.callbacks=[{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {save_last: true}}, "
    "{class_path: lightning_arc.callbacks.export.ExportModel}]",
)
SIZE = "hidden_size: 16, layers: 1, heads: 2, kv_heads: 1, intermediate_size: 16"


@pytest.fixture
def trained(cli, tmp_path) -> tuple[Path, Path]:
    """The folder and the checkpoint of a model that was trained for a step."""
    root = tmp_path / "run"
    scratch = f"--model.scratch={{{SIZE}, positions: grid}}"
    cli("fit", "--config", "configs/fit.yaml", *SMALL, scratch, f"--trainer.default_root_dir={root}")
    (tmp_path / "tasks.json").write_text(json.dumps(TASKS))
    (tmp_path / "candidates.json").write_text(json.dumps({"a": [[[[1, 0], [0, 1]], [[3]]]]}))
    return root / "model", next(root.rglob("last.ckpt"))


@pytest.mark.slow
def test_folders_and_checkpoints_rank_generate_and_learn_with_the_positions_of_their_training(cli, tmp_path, trained):
    folder, checkpoint = trained
    assert json.loads((folder / "config.json").read_text())["rope_parameters"]["mrope_section"] == [2, 1, 1]
    given = ("--data.tasks", tmp_path / "tasks.json", "--trainer.accelerator=cpu")
    rank = ("predict", "--config", "configs/rank.yaml", *given, "--data.candidates", tmp_path / "candidates.json")
    found = {}
    for name, model in (("folder", ("--model.model_path", folder)), ("checkpoint", ("--ckpt_path", checkpoint))):
        cli(*rank, *model, "--data.n_views=2", f"--trainer.default_root_dir={tmp_path / name}")
        lines = (tmp_path / name / "ranking.jsonl").read_text().splitlines()
        found[name] = [(one["grid"], one["log_likelihood"]) for one in json.loads(lines[0])["candidates"]]
    assert [grid for grid, _ in found["folder"]] == [grid for grid, _ in found["checkpoint"]]
    for (_, ours), (_, theirs) in zip(found["folder"], found["checkpoint"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    adapted = (
        "--model.test_time.steps=1",
        "--model.test_time.trees=1",
        f"--trainer.default_root_dir={tmp_path / 'adapted'}",
    )
    cli(*rank, "--ckpt_path", checkpoint, "--data.n_views=1", *adapted)
    assert (tmp_path / "adapted" / "submission.json").is_file()
    generate = ("predict", "--config", "configs/generate.yaml", *given, "--data.n_views=1")
    cli(*generate, "--model.model_path", folder, f"--trainer.default_root_dir={tmp_path / 'written'}")
    assert json.loads((tmp_path / "written" / "candidates.json").read_text())["a"]


def test_typed_positions_are_not_overruled_by_a_checkpoint(cli, trained):
    typed = f"--model.scratch={{{SIZE}, positions: sequence}}"
    output = cli("fit", "--config", "configs/fit.yaml", *SMALL, "--ckpt_path", trained[1], typed, status=2)
    assert "model.scratch.positions is sequence" in output and "was trained with grid: it cannot change" in output


def test_an_adapter_on_a_folder_with_grid_positions_is_trained_with_them(cli, tmp_path, trained):
    base = ("--model.model_path", trained[0], "--model.lora.r=2", "--model.scratch=null")
    cli("fit", "--config", "configs/fit.yaml", *SMALL, *base, f"--trainer.default_root_dir={tmp_path / 'adapted'}")
    assert (tmp_path / "adapted" / "model" / "adapter_config.json").is_file()
