"""GGUF files: model, tokenizer and chat template come from the file, an adapter is trained on top and names it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config
from transformers.convert_slow_tokenizer import bytes_to_unicode

from lightning_arc.errors import DataError
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.export import export
from lightning_arc.model.load import Lora, load_base
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.tokenizer import load_tokenizer

from .helpers import disturb, logits

gguf = pytest.importorskip("gguf")

MERGES = ["y e", "ye s", "n o"]
TOKENS = [*bytes_to_unicode().values(), "ye", "yes", "no", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def written(path: Path) -> PreTrainedModel:
    """Write a Qwen2 of two layers with random weights, matrices in 8 bits; return it with its weights in full."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(TOKENS),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        rms_norm_eps=1e-6,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=False,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_name("tiny")
    writer.add_context_length(4096)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([gguf.TokenType.NORMAL] * (len(TOKENS) - 3) + [gguf.TokenType.CONTROL] * 3)
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(len(TOKENS) - 1)
    writer.add_pad_token_id(len(TOKENS) - 3)
    writer.add_chat_template(TEMPLATE)
    for name, weight in model.state_dict().items():
        stem, _, last = name.rpartition(".")
        layer = stem.split(".")[2] if ".layers." in stem else None
        short = stem if layer is None else stem.split(".", 3)[3]
        there = NAMES[short] if layer is None else f"blk.{layer}.{NAMES[short]}"
        values = weight.numpy().astype(np.float32)
        if values.ndim == 1:
            writer.add_tensor(f"{there}.{last}", values)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(f"{there}.{last}", gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> tuple[Path, PreTrainedModel]:
    path = tmp_path_factory.mktemp("gguf") / "tiny-Q8_0.gguf"
    return path, written(path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_dequantised_into_an_ordinary_model(file, dtype):
    path, whole = file
    model = load_base(str(path), dtype)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert getattr(model.config, "quantization_config", None) is None and type(model) is type(whole)
    for (name, found), expected in zip(model.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(found.float(), expected, rtol=1e-2, atol=1e-3, msg=name)


def test_the_tokenizer_and_its_chat_template_come_from_the_file(file):
    tokenizer = load_tokenizer(str(file[0]))
    assert len(tokenizer) == len(TOKENS) and tokenizer.chat_template == TEMPLATE
    prompt_encoder = PromptEncoder(tokenizer)
    grid = np.arange(6, dtype=np.int8).reshape(2, 3)
    assert (prompt_encoder.read(prompt_encoder.write(grid)) == grid).all()
    assert tokenizer.eos_token == "<|im_end|>"


def test_an_adapter_on_top_names_the_file_as_its_base(file, tmp_path):
    path, _ = file
    module = ArcModel(model_path=str(path), lora=Lora(r=4))
    module.build("bf16-mixed")
    disturb({name: p for name, p in module.model.named_parameters() if "lora_B" in name}, 0)
    tokenizer = load_tokenizer(str(path))
    export(module, tokenizer, tmp_path / "adapter", merge=False)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        path
    )
    again = ArcModel(model_path=str(path), adapter_path=str(tmp_path / "adapter"))
    again.build("bf16-mixed")
    assert torch.equal(logits(again.model.eval()), logits(module.model.eval()))
    assert again.base == module.base
    export(module, tokenizer, tmp_path / "whole", merge=True)
    merged = load_base(str(tmp_path / "whole"), torch.float32)
    torch.testing.assert_close(logits(merged), logits(module.model).float(), rtol=0.1, atol=0.1)


def test_it_is_a_member_of_an_ensemble(file):
    module = ArcModel(model_path=str(file[0]), ensemble=[str(file[0])])
    module.build()
    module.eval()
    with module.models.activate(1) as model:
        assert torch.equal(logits(model), logits(module.model))


def test_without_the_package_one_line_says_what_to_install(file, monkeypatch):
    monkeypatch.setattr("lightning_arc.prompt.tokenizer.find_spec", lambda name: None)
    for load in (load_tokenizer, lambda path: load_base(path, torch.float32)):
        with pytest.raises(DataError, match=rf"^{file[0]}: a GGUF file needs the package gguf: pip install gguf"):
            load(str(file[0]))


@pytest.mark.parametrize("damage", ["missing", "text", "empty", "header", "torn", "zeros"])
def test_a_damaged_file_is_named_in_one_line(file, tmp_path, damage):
    path, content = tmp_path / "a.gguf", file[0].read_bytes()
    damaged = {
        "text": b"no model",
        "empty": b"",
        "header": content[:200],
        "torn": content[: len(content) // 2],
        "zeros": content[:4] + bytes(len(content)),
    }
    if damage != "missing":
        path.write_bytes(damaged[damage])
    with pytest.raises(DataError, match=f"^{path}: ") as error:
        load_tokenizer(str(path))
        load_base(str(path), torch.float32)
    assert len(str(error.value)) < 400


def test_four_bits_are_refused(file):
    with pytest.raises(DataError, match=r"\(model\.quantize\)"):
        load_base(str(file[0]), torch.float32, "4bit")
