"""Export: what transformers and peft load has the logits of what was trained."""

import copy
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_arc.callbacks.export import ExportModel
from lightning_arc.errors import DataError
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.export import export, load_checkpoint
from lightning_arc.model.hyper_parameters import saved_settings, settings_to_save
from lightning_arc.model.load import Lora
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.tokenizer import load_tokenizer
from lightning_arc.prompt.vocabulary import prompt_vocabulary


def trained(qwen_folder, lora: bool, kept) -> ArcModel:
    """A module whose trained weights have moved."""
    module = ArcModel(str(qwen_folder), lora=Lora(r=4) if lora else None, trim_vocabulary=kept is not None)
    module.build(kept=kept)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in module.trained:
            weight.add_(torch.randn_like(weight), alpha=0.05)
    return module.eval()


def logits(model, ids):
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits.float()


@pytest.mark.parametrize("trimmed", [False, True])
@pytest.mark.parametrize(("lora", "merge"), [(True, False), (True, True), (False, False)])
def test_exported_models_have_the_logits_of_the_trained_one(qwen_folder, tmp_path, lora, merge, trimmed):
    tokenizer = AutoTokenizer.from_pretrained(qwen_folder)
    kept = prompt_vocabulary(PromptEncoder(tokenizer)) if trimmed else None
    module = trained(qwen_folder, lora, kept)
    export(module, tokenizer, tmp_path / "out", merge)
    if lora and not merge:
        base = AutoModelForCausalLM.from_pretrained(qwen_folder, dtype=torch.float32)
        other = PeftModel.from_pretrained(base, tmp_path / "out")
        assert sum(f.stat().st_size for f in (tmp_path / "out").glob("*.safetensors")) < 10**6  # no embedding in it
    else:
        other = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
        assert len(other.get_input_embeddings().weight) == other.config.vocab_size == 151_936
    places = torch.randint(len(kept) if trimmed else 1000, (2, 20))
    ids = torch.from_numpy(kept)[places].long() if trimmed else places
    theirs = logits(other, ids)[..., torch.from_numpy(kept).long()] if trimmed else logits(other, ids)
    torch.testing.assert_close(logits(module.causal_lm, places), theirs, rtol=1e-4, atol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").vocab_size == tokenizer.vocab_size


@pytest.mark.parametrize(("lora", "merge"), [(False, True), (True, True), (True, False)])
def test_weights_in_bfloat16_take_half_of_the_room_and_are_rounded_once(qwen_folder, tmp_path, lora, merge):
    file = "model.safetensors" if merge else "adapter_model.safetensors"
    tokenizer, module = AutoTokenizer.from_pretrained(qwen_folder), trained(qwen_folder, lora, None)
    before = [p.clone() for p in module.trained]
    for name, dtype in (("whole", torch.float32), ("half", torch.bfloat16)):
        export(module, tokenizer, tmp_path / name, merge, dtype)
    sizes = [(tmp_path / name / file).stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.6 * sizes[1]
    whole, half = (load_file(tmp_path / name / file) for name in ("whole", "half"))
    assert all(torch.equal(p.bfloat16(), half[name]) for name, p in whole.items())
    assert all(torch.equal(p, q) for p, q in zip(before, module.trained, strict=True))


def test_an_adapter_of_a_trimmed_model_goes_on_being_trained_on_the_whole_one(qwen_folder, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(qwen_folder)
    kept = prompt_vocabulary(PromptEncoder(tokenizer))
    module = trained(qwen_folder, True, kept)
    export(module, tokenizer, tmp_path / "adapter", merge=False)
    whole = ArcModel(str(qwen_folder), adapter_path=str(tmp_path / "adapter"))
    whole.build()
    places = torch.randint(len(kept), (1, 20))
    ids = torch.from_numpy(kept).long()
    theirs = logits(whole.causal_lm, ids[places])[..., ids]
    torch.testing.assert_close(logits(module.causal_lm, places), theirs, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_is_loaded_and_others_are_refused(qwen_folder, tmp_path):
    module = trained(qwen_folder, True, None)
    checkpoint = {"state_dict": copy.deepcopy(module.state_dict())}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "last.ckpt")
    other = ArcModel(str(qwen_folder), lora=Lora(r=4))
    other.build()
    load_checkpoint(other, str(tmp_path / "last.ckpt"))
    ids = torch.randint(1000, (1, 9))
    assert torch.equal(logits(other.eval().causal_lm, ids), logits(module.causal_lm, ids))
    for wrong in (ArcModel(str(qwen_folder)), ArcModel(str(qwen_folder), lora=Lora(r=8))):
        wrong.build()
        with pytest.raises(DataError, match="checkpoint"):
            load_checkpoint(wrong, str(tmp_path / "last.ckpt"))
    (tmp_path / "bad.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(DataError, match="bad.ckpt: not a checkpoint"):
        load_checkpoint(other, str(tmp_path / "bad.ckpt"))


def test_all_weights_of_a_trimmed_model_are_continued_with_the_same_tokens_only(qwen_folder, tmp_path):
    kept = prompt_vocabulary(PromptEncoder(AutoTokenizer.from_pretrained(qwen_folder)))
    module = trained(qwen_folder, False, kept)
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    for others in (kept[1:], None):
        other = ArcModel(str(qwen_folder), trim_vocabulary=others is not None)
        other.build(kept=others)
        with pytest.raises(DataError, match="model.trim_vocabulary"):
            other.on_load_checkpoint(checkpoint)


def test_a_checkpoint_of_an_adapter_that_went_on_being_trained_needs_no_folder_of_it(repo_root, tmp_path):
    base = str(repo_root / "lightning_arc" / "bundled" / "model")
    first = ArcModel(base, lora=Lora(r=3, alpha=5, target_modules=["q_proj", "v_proj"]))
    first.build()
    first.model.save_pretrained(tmp_path / "adapter")
    second = ArcModel(base, adapter_path=str(tmp_path / "adapter"))
    second.build()
    checkpoint = {"state_dict": copy.deepcopy(second.state_dict())}
    second.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "last.ckpt")
    settings = saved_settings(torch.load(tmp_path / "last.ckpt", weights_only=True), "last.ckpt")
    assert settings["adapter_path"] is None
    lora = Lora(**settings["lora"])
    assert lora == Lora(r=3, alpha=5, target_modules=["q_proj", "v_proj"])
    third = ArcModel(base, lora=lora)
    third.build()
    load_checkpoint(third, str(tmp_path / "last.ckpt"))
    ids = torch.randint(80, (1, 9))
    assert torch.equal(logits(third.eval().causal_lm, ids), logits(second.eval().causal_lm, ids))

    config = first.model.peft_config["default"]
    config.rank_pattern = {"q_proj": 2}  # no settings of ours make such an adapter
    assert settings_to_save({"adapter_path": "other", "lora": None}, config) == {"adapter_path": "other", "lora": None}


@pytest.mark.parametrize("merge", [True, False])
def test_an_adapter_and_a_whole_model_are_not_put_into_one_folder(tmp_path, merge):
    module, tokenizer, out = ArcModel("bundled", lora=Lora(r=4)), load_tokenizer("bundled"), tmp_path / "out"
    module.build()
    export(module, tokenizer, out, merge)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(DataError, match=r"out: holds (adapter_config.json|model.safetensors), which would be loaded"):
        export(module, tokenizer, out, not merge)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    export(module, tokenizer, out, merge)


def test_a_training_keeps_a_model_of_the_other_kind_under_another_name(tmp_path):
    module, encoder = ArcModel("bundled", lora=Lora(r=4)), SimpleNamespace(tokenizer=load_tokenizer("bundled"))
    module.build()
    continued = SimpleNamespace(
        is_global_zero=True,
        default_root_dir=str(tmp_path),
        ckpt_path=str(tmp_path / "last.ckpt"),
        datamodule=SimpleNamespace(prompt_encoder=encoder),
    )
    for merge in (False, False, True):
        ExportModel(merge=merge).on_fit_end(continued, module)
    assert (tmp_path / "model-1" / "adapter_model.safetensors").is_file()
    assert (tmp_path / "model" / "model.safetensors").is_file() and len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_leaves_no_half_a_model(tmp_path, monkeypatch):
    module = ArcModel("bundled")
    module.build()

    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(type(module.model), "save_pretrained", full)
    with pytest.raises(DataError, match=r"model: cannot be written: .*No space left on device"):
        export(module, load_tokenizer("bundled"), tmp_path / "model", merge=False)
    assert not list(tmp_path.iterdir())
