"""Adapter folders that are damaged, dangerous, or of another model: nothing is executed, one line gives the reason."""

import json
import pickle
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_arc.errors import DataError
from lightning_arc.model.adapter_folder import CONFIG, WEIGHTS
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.ensemble import ModelEnsemble
from lightning_arc.model.load import Lora, Scratch, add_lora, new_model
from lightning_arc.prompt.compact import compact_tokenizer

from .helpers import SIZE, disturb, logits


class Payload:
    """Creates a file where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.fixture
def folder(model, tmp_path) -> Path:
    """An adapter as peft saves it."""
    adapted = add_lora(model.float(), Lora(r=4), None)
    disturb({name: p for name, p in adapted.named_parameters() if "lora_B" in name}, 0)
    adapted.save_pretrained(tmp_path / "adapter")
    adapted.unload()
    return tmp_path / "adapter"


@pytest.fixture(params=["model.adapter_path", "model.ensemble"])
def load(request, model):
    """Loads an adapter in one of the two ways, and returns the logits of the model with it."""

    def loaded(folder: Path) -> torch.Tensor:
        if request.param == "model.adapter_path":
            return logits(add_lora(model, None, str(folder)))
        with ModelEnsemble(model, [str(folder)]).activate(1) as activated:
            return logits(activated)

    return loaded


def refused(load, folder: Path, match: str) -> str:
    with pytest.raises(DataError, match=match) as error:
        load(folder)
    line = str(error.value)
    assert line.startswith(str(folder)) and len(line) < 500
    return line


def change(folder: Path, **settings) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | settings))


def test_a_sound_adapter_is_loaded(load, folder, model):
    plain = logits(model)
    assert not torch.allclose(load(folder), plain)


def test_a_pickle_is_neither_executed_nor_read(load, folder, tmp_path):
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    load(folder)
    (folder / WEIGHTS).unlink()
    refused(load, folder, f"{WEIGHTS}: there is no such file; adapter_model.bin is not read, as it can hold code")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", ["torn", "empty", "zeros", "pickle", "folder"])
def test_damaged_weights_are_named(load, folder, tmp_path, damage):
    path = folder / WEIGHTS
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        content = {"torn": whole[:-9], "empty": b"", "zeros": bytes(len(whole))}
        path.write_bytes(content[damage] if damage in content else pickle.dumps(Payload(tmp_path / "ran")))
    refused(load, folder, WEIGHTS)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[1]", "peft_type is None, expected 'LORA'"),
        ('{"peft_type": "PREFIX_TUNING", "task_type": "CAUSAL_LM"}', "peft_type is 'PREFIX_TUNING', expected 'LORA'"),
        ('{"peft_type": "LORA", "r": "many", "target_modules": ["q_proj"]}', "adapter"),
        ('{"peft_type": "LORA", "r": -1, "target_modules": ["q_proj"]}', "positive integer"),
        ('{"peft_type": "LORA", "target_modules": ["nothing"]}', "nothing"),
        ('{"peft_type": "LORA", "target_modules": 3}', "adapter"),
        ('{"peft_type": "LORA", "target_modules": ["q_proj"], "layers_to_transform": "x"}', "adapter"),
    ],
)
def test_settings_that_are_not_those_of_a_lora_adapter_are_named(load, folder, content, match):
    (folder / CONFIG).write_text(content)
    refused(load, folder, match)


def test_settings_import_no_module(load, folder, tmp_path, monkeypatch):
    (tmp_path / "payload.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    change(folder, megatron_config={"a": 1}, megatron_core="payload")
    refused(load, folder, "megatron_config is set, which is not supported")
    change(folder, megatron_config=None, auto_mapping={"base_model_class": "A", "parent_library": "payload"})
    load(folder)
    assert "payload" not in sys.modules


def test_an_embedding_of_another_size_is_refused_with_both_sizes(load, folder):
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {"base_model.model.model.embed_tokens.weight": torch.zeros(90, 32)}, folder / WEIGHTS)
    line = refused(load, folder, "size mismatch for ")
    assert "embed_tokens" in line and "[90, 32]" in line and "[113, 32]" in line


def test_an_adapter_of_a_model_with_more_layers_is_refused(load, folder):
    other = new_model(Scratch(**{**vars(SIZE), "layers": 4}), compact_tokenizer())
    shutil.rmtree(folder)
    add_lora(other, Lora(r=4), None).save_pretrained(folder)
    refused(load, folder, r"has, beside those of this model, 14 weights, base_model\.model\.model\.layers\.3\.")


def test_an_adapter_that_lacks_weights_is_refused(load, folder):
    tensors = load_file(folder / WEIGHTS)
    removed = next(name for name in tensors if "lora_B" in name)
    del tensors[removed]
    save_file(tensors, folder / WEIGHTS)
    refused(load, folder, f"lacks 1 weights, {re.escape(removed)} among them")


def test_a_folder_without_settings_is_no_adapter(model, tmp_path):
    with pytest.raises(DataError, match=f"^{tmp_path}: expected a folder with {CONFIG} and {WEIGHTS}"):
        add_lora(model, None, str(tmp_path))


def test_a_refused_adapter_of_an_ensemble_names_the_option(folder, model):
    (folder / WEIGHTS).unlink()
    with pytest.raises(DataError, match=r"\(model\.ensemble\)$"):
        ModelEnsemble(model, [str(folder)])


def test_a_base_model_that_cannot_be_read_is_named(tmp_path):
    for content in ("{", '{"model_type": "qwen2", "hidden_size": "a"}', '{"model_type": "none such"}', "[]"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(DataError, match=f"^{tmp_path}: no model could be loaded: ") as error:
            ArcModel(model_path=str(tmp_path)).build()
        assert not str(error.value).endswith(":")
