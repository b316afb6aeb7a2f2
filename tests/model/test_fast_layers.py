"""Fast layers: values and gradients of the libraries' own, and what they cannot do is left to those."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    Qwen2Config,
    Qwen3_5TextConfig,
    Qwen3Config,
)

from lightning_arc.model.fast_layers import FastLoraLinear, FastRMSNorm, FastSwiGLU, use_fast_layers

SIZE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
}
IDS = torch.arange(60).view(3, 20)


def full_attention(**size) -> Qwen3_5TextConfig:
    """A Qwen3.5, whose norms add one to their weight."""
    return Qwen3_5TextConfig(**size, layer_types=["full_attention"] * 2)


def made(config, **lora) -> nn.Module:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(**SIZE), dtype=torch.float32)
    for name, p in model.named_parameters():
        if "norm" in name:
            nn.init.normal_(p, 0.5, 0.3)
    if lora:
        settings = {"target_modules": "all-linear", "init_lora_weights": False} | lora
        model = get_peft_model(model, LoraConfig(**settings))
    return model


def step(model: nn.Module) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(1)  # of dropout
    logits = model(input_ids=IDS).logits.float()
    logits.logsumexp(-1).mean().backward()
    return logits.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def kinds(model: nn.Module) -> set[type]:
    return {fast for fast in (FastLoraLinear, FastRMSNorm, FastSwiGLU) for m in model.modules() if isinstance(m, fast)}


LORAS = {
    "none": {},
    "plain": {"r": 4},
    "rslora": {"r": 4, "use_rslora": True},
    "dropout": {"r": 4, "lora_dropout": 0.5},
    "dora": {"r": 4, "use_dora": True},
    "bias": {"r": 4, "lora_bias": True},
}


@pytest.mark.parametrize("lora", LORAS)
@pytest.mark.parametrize("config", [Qwen2Config, Qwen3Config, LlamaConfig, full_attention])
def test_logits_and_gradients_are_those_of_the_library(config, lora):
    plain = made(config, **LORAS[lora])
    fast = copy.deepcopy(plain).eval()  # without dropout layers are compared before they are replaced
    use_fast_layers(fast)
    fast.train()
    assert kinds(fast) >= {FastRMSNorm, FastSwiGLU} and (FastLoraLinear in kinds(fast)) == bool(LORAS[lora])
    assert [*fast.state_dict()] == [*plain.state_dict()]
    (found, gradients), (expected, theirs) = step(fast), step(plain)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_under_autocast_they_are_as_near_to_exact_as_the_library():
    plain = made(Qwen2Config, r=4)
    fast, exact = copy.deepcopy(plain), step(copy.deepcopy(plain))[1]
    use_fast_layers(fast)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = step(fast)[1], step(plain)[1]
    assert {gradient.dtype for gradient in ours.values()} == {torch.float32}

    def mistake(found):
        return sum(float((found[name] - gradient).square().sum()) for name, gradient in exact.items()) ** 0.5

    assert mistake(ours) < 1.5 * mistake(theirs)


def test_several_adapters_add_up_and_can_be_switched_off():
    plain = made(Qwen2Config, r=4)
    plain.add_adapter("other", LoraConfig(target_modules="all-linear", init_lora_weights=False, r=2))
    fast = copy.deepcopy(plain)
    use_fast_layers(fast)
    found = {}
    for model in (plain, fast):
        for names in (["default", "other"], ["other"], []):
            model.base_model.set_adapter(names) if names else model.base_model.disable_adapter_layers()
            with torch.no_grad():
                found.setdefault(tuple(names), []).append(model(input_ids=IDS).logits)
    for ours, theirs in found.values():
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found["default", "other"][0], found["other",][0])


def test_a_layer_that_computes_something_else_is_left_alone():
    model = made(Gemma3TextConfig)  # its gates are of another form
    use_fast_layers(model)
    assert kinds(model) == {FastRMSNorm}


@pytest.mark.parametrize("lora", ["none", "plain"])
def test_less_is_kept_for_the_backward_pass(lora):
    plain = made(Qwen2Config, **LORAS[lora])
    fast = copy.deepcopy(plain)
    use_fast_layers(fast)
    kept = []
    for model in (plain, fast):
        sizes: dict[int, int] = {}
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

        def count(x, sizes=sizes, weights=weights):
            if x.untyped_storage().data_ptr() not in weights:
                sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x), torch.autocast("cpu", torch.bfloat16):
            out = model(input_ids=IDS).logits
        kept.append(sum(sizes.values()))
        del out
    assert kept[1] < 0.8 * kept[0]
