"""The bundled adapter of a pretrained Qwen: whole, refused on another model, and ranked with where the weights are."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lightning_arc.folders import ADAPTERS, CANDIDATES, find_adapter

NAME = "qwen2.5-coder-0.5b"
LAYERS = {"q_proj": (0, 0), "k_proj": (0, 1), "v_proj": (0, 1), "o_proj": (0, 0)} | {
    "gate_proj": (0, 2),
    "up_proj": (0, 2),
    "down_proj": (2, 0),
}
"""Which widths each adapted layer reads and writes: 0 the residual stream, 1 keys, 2 the feed-forward layer."""


@pytest.fixture(scope="module")
def weights() -> Path:
    """The folder of the pretrained weights."""
    folder = Path(os.environ.get("ARC_QWEN", NAME))
    if not (folder / "model.safetensors").is_file():
        pytest.skip("needs the weights of Qwen2.5-Coder-0.5B-Instruct: ARC_QWEN names their folder")
    return folder.absolute()


def test_the_adapter_has_finite_weights_of_the_shapes_of_its_base():
    folder = Path(find_adapter(f"bundled:{NAME}"))
    base, config = (json.loads((folder / f"{name}.json").read_text()) for name in ("base_model", "adapter_config"))
    assert base["model_path"] == config["base_model_name_or_path"] == "Qwen/Qwen2.5-Coder-0.5B-Instruct"
    found = load_file(folder / "adapter_model.safetensors")
    width = base["hidden_size"]
    widths = width, width // base["num_attention_heads"] * base["num_key_value_heads"], base["intermediate_size"]
    expected = {}
    for layer in range(base["num_hidden_layers"]):
        for name, (reads, writes) in LAYERS.items():
            part = "self_attn" if name[0] in "qkvo" else "mlp"
            at = f"base_model.model.model.layers.{layer}.{part}.{name}.lora_"
            expected |= {f"{at}A.weight": (config["r"], widths[reads]), f"{at}B.weight": (widths[writes], config["r"])}
    assert {name: tuple(p.shape) for name, p in found.items()} == expected
    assert all(bool(p.isfinite().all()) and p.dtype == torch.bfloat16 for p in found.values())
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 20e6


def test_every_bundled_adapter_has_a_card_and_both_rankers():
    for folder in ADAPTERS.iterdir():
        assert {"README.md", "ranker.yaml", "ranker_without_order.yaml"} <= {path.name for path in folder.iterdir()}


def test_another_model_is_refused_in_one_line(cli, qwen_folder, tmp_path):
    rank = ("predict", "--config", "configs/rank_qwen.yaml", "--trainer.default_root_dir", tmp_path / "out")
    error = cli(*rank, "--model.model_path", qwen_folder, status=2).strip()
    assert "belongs to Qwen/Qwen2.5-Coder-0.5B-Instruct (hidden_size 896), this is " in error
    assert "\n" not in error and not [*tmp_path.rglob("*.json*")]


@pytest.mark.slow
def test_the_real_weights_rank_with_it(cli, weights, tmp_path):
    every = json.loads((CANDIDATES / "evaluation_60.json").read_text())
    shortest = min(every, key=lambda task_id: len(json.dumps(every[task_id])))
    (tmp_path / "candidates.json").write_text(json.dumps({shortest: every[shortest]}))
    cli(
        *("predict", "--config", "configs/rank_qwen.yaml", "--model.model_path", weights),
        *("--data.candidates", tmp_path / "candidates.json", "--trainer.default_root_dir", tmp_path / "out"),
    )
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [*json.loads((tmp_path / "out" / "submission.json").read_text())] == [shortest]
    assert metrics["n_tests"] == 1 and not metrics["not_judged"]["too_long"] + metrics["not_judged"]["not_reached"]
