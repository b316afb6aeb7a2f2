"""Models without weights: the public shapes of Qwen's small models, from a folder with a configuration alone."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from lightning_arc.errors import DataError
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.load import Lora
from lightning_arc.model.meta import few_layers, meta_model

SHAPES = Path(__file__).parent / "shapes"
WEIGHTS = {
    "qwen2.5_0.5b": (494_032_768, 4_399_104),
    "qwen2.5_1.5b": (1_543_714_304, 9_232_384),
    "qwen3_0.6b": (596_049_920, 5_046_272),
    "qwen3_1.7b": (1_720_574_976, 8_716_288),
}
"""Of the model as its card says, and of a LoRA adapter of rank 8 on all linear layers."""


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_model_of_a_public_shape_has_its_public_number_of_weights(name, tmp_path):
    shutil.copy(SHAPES / f"{name}.json", tmp_path / "config.json")
    model = meta_model(ArcModel(str(tmp_path), lora=Lora(r=8)), "bf16-mixed")
    assert all(p.is_meta for p in model.parameters())
    trained, frozen = ([p for p in model.parameters() if p.requires_grad is t] for t in (True, False))
    assert (sum(p.numel() for p in frozen), sum(p.numel() for p in trained)) == WEIGHTS[name]
    assert {p.dtype for p in frozen} == {torch.bfloat16} and {p.dtype for p in trained} == {torch.float32}


def test_each_shape_has_a_config_and_no_config_is_without_one(repo_root):
    configs = {path.stem for path in (repo_root / "configs" / "qwen").glob("qwen*.yaml")}
    assert configs == {path.stem for path in SHAPES.glob("*.json")} == {*WEIGHTS}
    for path in (repo_root / "configs" / "qwen").glob("*.yaml"):
        assert {*yaml.safe_load(path.read_text())} <= {"model", "data", "trainer"}


def test_few_layers_are_real_ones_and_drawing_them_changes_no_random_numbers(tmp_path):
    module = ArcModel("bundled", lora=Lora(r=4))
    state = torch.get_rng_state()
    layers = few_layers(module, 2, "32-true").get_base_model().get_decoder().layers
    assert len(layers) == 2 and not any(p.is_meta for p in layers.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_a_configuration_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match="no configuration of a model could be read"):
        meta_model(ArcModel(str(tmp_path)), "32-true")
