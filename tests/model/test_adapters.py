import pytest
import torch
from peft import LoraConfig

from lightning_arc.model.adapters import Adapters, linear_names
from lightning_arc.model.load import Lora, add_lora, fingerprint

from .helpers import disturb, logits


def config(**changes) -> LoraConfig:
    return LoraConfig(**{"task_type": "CAUSAL_LM", "r": 4, "target_modules": ["q_proj", "down_proj"]} | changes)


@pytest.fixture(params=["plain", "adapted"])
def trained(request, model):
    """A model as it comes from training: all weights, or a base with a LoRA that changes it."""
    if request.param == "plain":
        return model
    adapted = add_lora(model, Lora(r=4), None)
    disturb({name: p for name, p in adapted.named_parameters() if "lora_B" in name}, 0)
    return adapted


def test_added_adapters_change_a_model_only_while_they_are_in_use(trained):
    plain = logits(trained)
    adapters = Adapters(trained)
    weights = {name: adapters.add(name, config()) for name in ("one", "other")}
    assert torch.equal(logits(trained), plain)
    for seed, (name, own) in enumerate(weights.items()):
        assert len(own) == 2 * 2 * 3
        with adapters.in_use((*adapters.own, name)) as model:
            assert torch.equal(logits(model), plain)  # a fresh one changes nothing
        disturb(own, seed)
    found = []
    for name in weights:
        with adapters.in_use((*adapters.own, name)) as model:
            found.append(logits(model))
            assert not any(p.requires_grad for p in model.parameters())
    assert not torch.allclose(found[0], plain) and not torch.allclose(found[0], found[1])
    assert torch.equal(logits(trained), plain)


def test_removing_gives_back_layers_names_and_what_is_trained(trained):
    before = fingerprint(trained), [(name, p.requires_grad) for name, p in trained.named_parameters()], logits(trained)
    for _ in range(2):
        adapters = Adapters(trained)
        disturb(adapters.add("one", config()), 1)
        adapters.remove()
        after = fingerprint(trained), [(name, p.requires_grad) for name, p in trained.named_parameters()]
        assert after == before[:2] and torch.equal(logits(trained), before[2])


def test_linear_layers_are_named_once_with_or_without_adapters_and_without_the_head(trained):
    adapters = Adapters(trained)
    expected = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert linear_names(adapters.model, [adapters.model.get_output_embeddings()]) == expected
    adapters.add("one", config())
    assert linear_names(adapters.model, [adapters.model.get_output_embeddings()]) == expected
    assert linear_names(adapters.model)[-1] == "lm_head"


def test_a_saved_adapter_is_that_adapter_again(trained, tmp_path):
    adapters = Adapters(trained)
    disturb(adapters.add("one", config()), 3)
    with adapters.in_use(("one",)) as model:
        expected = logits(model)
    adapters.peft.save_pretrained(tmp_path, selected_adapters=["one"])
    adapters.remove()
    again = Adapters(trained)
    again.load("other", str(tmp_path / "one"))
    with again.in_use(("other",)) as model:
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=0)
