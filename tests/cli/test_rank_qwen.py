"""The bundled adapter of a pretrained Qwen: whole, refused on another model, and ranked with where the weights are."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lightning_arc.folders import ADAPTERS, CANDIDATES, find_adapter
from lightning_arc.model.int8_products import exact

NAME = "qwen2.5-coder-0.5b"
LAYERS = {"q_proj": (0, 0), "k_proj": (0, 1), "v_proj": (0, 1), "o_proj": (0, 0)} | {
    "gate_proj": (0, 2),
    "up_proj": (0, 2),
    "down_proj": (2, 0),
}
"""Which widths each adapted layer reads and writes: 0 the residual stream, 1 keys, 2 the feed-forward layer."""


def shortest_candidates(path: Path, least: int = 1) -> str:
    """Write the shortest of the bundled candidates of a task that has at least so many for a test; return its id."""
    every = json.loads((CANDIDATES / "evaluation_60.json").read_text())
    enough = [task_id for task_id, tests in every.items() if len(tests[0]) >= least]
    shortest = min(enough, key=lambda task_id: len(json.dumps(every[task_id])))
    path.write_text(json.dumps({shortest: every[shortest]}))
    return shortest


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
@pytest.mark.parametrize("int8", ["false", "true"])
def test_the_real_weights_rank_with_it(cli, weights, int8, tmp_path):
    if int8 == "true" and not exact():
        pytest.skip("this CPU has no exact 8-bit products")
    shortest = shortest_candidates(tmp_path / "candidates.json")
    cli(
        *("predict", "--config", "configs/rank_qwen.yaml", "--model.model_path", weights),
        *("--data.candidates", tmp_path / "candidates.json", "--trainer.default_root_dir", tmp_path / "out"),
        *("--model.int8_products", int8),
    )
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [*json.loads((tmp_path / "out" / "submission.json").read_text())] == [shortest]
    assert metrics["n_tests"] == 1 and not metrics["not_judged"]["too_long"] + metrics["not_judged"]["not_reached"]


@pytest.mark.skipif(not exact(), reason="this CPU has no exact 8-bit products")
def test_rankings_and_test_time_training_in_8_bits_are_near_those_in_32(cli, tmp_path):
    shortest_candidates(tmp_path / "candidates.json", least=8)
    records = {}
    for int8 in ("true", "false"):
        cli(
            *("predict", "--config", "configs/rank.yaml", "--data.candidates", tmp_path / "candidates.json"),
            *("--model.int8_products", int8, "--trainer.default_root_dir", tmp_path / int8, "--data.n_views", "1"),
            *("--model.test_time.steps", "2", "--model.stopping", "null"),
        )
        records[int8] = json.loads((tmp_path / int8 / "evidence-0.jsonl").read_text().splitlines()[-1])
    for name in ("log_odds", "log_likelihood"):
        found, expected = records["true"][name], records["false"][name]
        assert found != expected and found == pytest.approx(expected, abs=0.1, rel=0.02), name
