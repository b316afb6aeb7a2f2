"""Adapters on the base that they were trained on, on another release of it, and on another model."""

import json
import warnings

import pytest
import torch

from lightning_arc.errors import DataError
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.base_name import FILE, check_base, check_base_of_folder, name_of_base
from lightning_arc.model.export import export
from lightning_arc.model.load import Lora, Scratch, load_base, new_model
from lightning_arc.prompt.compact import compact_tokenizer

SIZE = {"hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate_size": 48}


def _saved(folder, seed: int = 0, noise: float = 0.0, **size) -> str:
    """A folder of a base; with noise it is another release."""
    torch.manual_seed(seed)
    model = new_model(Scratch(**SIZE | size), compact_tokenizer())
    with torch.no_grad():
        for p in model.parameters():
            p += noise * torch.randn_like(p)
    model.save_pretrained(folder)
    compact_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def trained(tmp_path) -> ArcModel:
    module = ArcModel(_saved(tmp_path / "base"), lora=Lora(r=2))
    module.build()
    return module


@pytest.fixture
def checkpoint(trained) -> dict:
    found = {"state_dict": trained.state_dict()}
    trained.on_save_checkpoint(found)
    return found


def _on(base: str, checkpoint: dict) -> list[str]:
    """Load a checkpoint on a base; return what is warned of."""
    module = ArcModel(base, lora=Lora(r=2))
    module.build()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module.on_load_checkpoint(checkpoint)
    return [str(warning.message) for warning in caught]


def test_an_adapter_goes_on_another_release_with_a_warning_and_is_refused_on_another_model(
    trained, checkpoint, tmp_path
):
    assert checkpoint["base"]["architecture"] == "Qwen2ForCausalLM" and checkpoint["base"]["hidden_size"] == 32
    assert _on(trained.model_path, checkpoint) == []
    (message,) = _on(_saved(tmp_path / "release", noise=1e-3), checkpoint)
    assert "is the same model with other weights" in message and "\n" not in message
    for name, size in {"num_hidden_layers": {"layers": 3}, "intermediate_size": {"intermediate_size": 64}}.items():
        with pytest.raises(DataError, match=rf"^model.model_path: the checkpoint belongs to .*\({name} ") as error:
            _on(_saved(tmp_path / name, **size), checkpoint)
        assert "\n" not in str(error.value)


def test_a_checkpoint_of_an_earlier_version_goes_on_its_exact_base_alone(trained, checkpoint, tmp_path):
    checkpoint["base"] = {name: checkpoint["base"][name] for name in ("model_path", "fingerprint")}
    assert _on(trained.model_path, checkpoint) == []
    with pytest.raises(DataError, match="^model.model_path: the checkpoint belongs to"):
        _on(_saved(tmp_path / "release", noise=1e-3), checkpoint)


def test_an_exported_adapter_names_its_base(trained, tmp_path):
    folder = tmp_path / "adapter"
    export(trained, compact_tokenizer(), folder, merge=False)
    assert json.loads((folder / FILE).read_text()) == trained.base
    release, other = _saved(tmp_path / "release", noise=1e-3), _saved(tmp_path / "other", layers=3)
    ArcModel(trained.model_path, adapter_path=str(folder)).build()
    with pytest.warns(UserWarning, match="is the same model with other weights"):
        ArcModel(release, adapter_path=str(folder)).build()
    with pytest.raises(DataError, match=r"^model.model_path: .*adapter belongs to .*\(num_hidden_layers 2\), this is"):
        ArcModel(other, adapter_path=str(folder)).build()
    (folder / FILE).write_text("{")
    with pytest.raises(DataError, match=f"{FILE}: cannot be read as JSON"):
        ArcModel(release, adapter_path=str(folder)).build()
    (folder / FILE).unlink()  # as adapters of earlier versions and of peft
    ArcModel(release, adapter_path=str(folder)).build()


def test_an_ensemble_holds_adapters_to_the_same_base(trained, tmp_path):
    folder = tmp_path / "adapter"
    export(trained, compact_tokenizer(), folder, merge=False)
    module = ArcModel(_saved(tmp_path / "other", intermediate_size=64), ensemble=[str(folder)])
    module.build()
    with pytest.raises(DataError, match=r"^model.ensemble: .*adapter belongs to .*\(intermediate_size 48\)"):
        _ = module.models


def test_an_error_about_a_base_name_is_short_whatever_the_file_holds(trained, tmp_path):
    base = name_of_base(load_base(trained.model_path, torch.bfloat16), "BASE", "f")
    assert {name: value for name, value in base.items() if name not in ("model_path", "fingerprint")} == {
        name: value for name, value in trained.base.items() if name not in ("model_path", "fingerprint")
    }
    for saved in (None, [], "text", {"fingerprint": ["x"] * 1000}, {"architecture": "x" * 1000}):
        with pytest.raises(DataError) as error:
            check_base(saved, base, "it")
        assert len(str(error.value)) < 300
    check_base_of_folder(tmp_path, base)
