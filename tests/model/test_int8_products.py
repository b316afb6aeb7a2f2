"""Products in 8-bit integers: exactly those of the rounded numbers, and near those of the numbers themselves."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import Qwen2Config

from lightning_arc.errors import DataError
from lightning_arc.model import int8_products
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.fast_layers import use_fast_layers
from lightning_arc.model.int8_products import (
    GROUP,
    Int8Linear,
    Packed,
    exact,
    int8_weights,
    use_int8_products,
)
from lightning_arc.model.load import Lora, Scratch

from .test_fast_layers import made

needs_vnni = pytest.mark.skipif(not exact(), reason="this CPU has no exact 8-bit products")
WIDE = {"hidden_size": 128, "intermediate_size": 1344, "head_dim": 32}


def rounded(x: torch.Tensor) -> torch.Tensor:
    """Rounded numbers in float64, checked to be the nearest multiples of a 127th of the largest in their group."""
    parts = []
    for part in x.float().chunk(-(-x.shape[1] // GROUP), 1):
        integers, scales = int8_products._round(part)
        torch.testing.assert_close(scales, part.abs().amax(1, keepdim=True) / 127)
        parts.append((integers.double() - 128) * scales)
        assert ((parts[-1] - part).abs() <= 0.5001 * scales).all()
    return torch.cat(parts, 1)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@needs_vnni
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("n", "out", "width"), [(2, 64, 64), (300, 70, 640), (513, 96, 641), (40, 65, 4864)])
def test_a_product_is_that_of_the_rounded_numbers(n, out, width, dtype):
    generator = torch.Generator().manual_seed(width)
    x = torch.randn(n, width, generator=generator).to(dtype)
    x[-1, 3] = 200  # an outlier
    weight = torch.randn(out, width, generator=generator)
    found, plain = Packed(weight).multiply(x), rounded(x) @ rounded(weight).T
    assert found.dtype == dtype and relative(found, plain) < (1e-5 if dtype == torch.float32 else 3e-3)
    assert relative(found[: n - 1], x[: n - 1].double() @ weight.double().T) < 0.02


@needs_vnni
def test_zeros_stay_zero_and_numbers_that_are_not_finite_are_seen():
    weight = torch.randn(64, 64)
    x = torch.randn(3, 64)
    x[0], x[1, 5] = 0, torch.nan
    out = Packed(weight).multiply(x)
    assert (out[0] == 0).all() and out[1].isnan().all() and out[2].isfinite().all()
    x[1, 5] = torch.inf
    assert not Packed(weight).multiply(x)[1].isfinite().any()
    assert Packed(torch.zeros(64, 64)).multiply(torch.randn(2, 64)).eq(0).all()


@needs_vnni
def test_gradients_are_products_with_the_transposed_weight(monkeypatch):
    weight, bias = nn.Parameter(torch.randn(96, 700), requires_grad=False), nn.Parameter(torch.randn(96))
    layer = Int8Linear(700, 96)
    layer.weight, layer.bias = weight, bias
    x, gradient = torch.randn(2, 5, 700, requires_grad=True), torch.randn(2, 5, 96)
    layer(x).backward(gradient)
    rows = gradient.flatten(0, 1)
    assert relative(x.grad.flatten(0, 1), rounded(rows) @ rounded(weight.T).T) < 1e-5
    torch.testing.assert_close(bias.grad, rows.sum(0))
    monkeypatch.setattr(int8_products.Int8Weight, "gradient", None)  # not asked for where the input has none
    layer(x.detach()).backward(gradient)
    torch.testing.assert_close(bias.grad, 2 * rows.sum(0))


def both(**lora) -> tuple[nn.Module, nn.Module]:
    """A model and its copy with 8-bit products, both with an adapter or without."""
    plain = made(lambda **size: Qwen2Config(**{**size, **WIDE}), **lora)
    use_fast_layers(plain)
    fast = copy.deepcopy(plain)
    use_int8_products(fast.get_base_model() if lora else fast)
    return plain, fast


def step(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    logits = model(input_ids=torch.arange(60).view(3, 20)).logits.float()
    F.cross_entropy(logits.flatten(0, 1), torch.arange(60)).backward()
    return logits.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@needs_vnni
@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize(
    "lora", [{"r": 4}, {"r": 4, "target_modules": ["v_proj", "down_proj"]}, {"r": 4, "use_dora": True}]
)
def test_an_adapter_learns_the_same_on_a_frozen_base(lora, bfloat16):
    plain, fast = both(**{"target_modules": "all-linear"} | lora)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        (expected, theirs), (found, ours) = step(plain), step(fast)
    assert relative(found, expected) < 0.05
    assert F.cosine_similarity(ours, theirs, 0) > 0.995 and abs(ours.norm() / theirs.norm() - 1) < 0.02
    assert not torch.equal(found, expected)  # they are computed differently
    assert [*fast.state_dict()] == [*plain.state_dict()]


@needs_vnni
def test_weights_that_are_trained_are_not_rounded():
    plain, fast = both()
    (expected, theirs), (found, ours) = step(plain), step(fast)
    assert torch.equal(found, expected) and torch.equal(ours, theirs)
    with torch.inference_mode():
        ids = torch.arange(60).view(3, 20)
        assert not torch.equal(fast(input_ids=ids).logits, plain(input_ids=ids).logits)


@needs_vnni
def test_the_head_adapters_and_narrow_layers_compute_as_before():
    _, fast = both()
    layers = {name for name, module in fast.named_modules() if isinstance(module, Int8Linear)}
    assert len(layers) == 2 * 7 and "lm_head" not in layers
    _, fast = both(r=64)
    adapters = [m for name, m in fast.named_modules() if ".lora_A." in name or ".lora_B." in name]
    assert adapters and not any(isinstance(module, Int8Linear) for module in adapters)
    narrow = made(Qwen2Config)  # all its layers are narrower than 64
    use_int8_products(narrow)
    assert not any(isinstance(module, Int8Linear) for module in narrow.modules())


@needs_vnni
def test_projections_of_the_same_input_round_it_once(monkeypatch):
    _, fast = both(r=4)
    calls, round_rows = [], int8_products._round
    with torch.no_grad():
        fast(input_ids=torch.arange(20)[None])  # weights are rounded too
        monkeypatch.setattr(int8_products, "_round", lambda x: (calls.append(x.shape), round_rows(x))[1])
        fast(input_ids=torch.arange(20)[None])
    # inputs of q, k, v; of o; of gate and up; and three groups of down's
    assert len(calls) == 2 * (1 + 1 + 1 + 3)


@needs_vnni
def test_changed_weights_are_packed_anew():
    layer = Int8Linear(64, 64, bias=False)
    x = torch.randn(4, 64)
    with torch.no_grad():
        before, copied = layer(x), copy.deepcopy(layer)
        assert torch.equal(copied(x), before)
        copied.load_state_dict({"weight": -layer.weight})
        assert torch.equal(copied(x), -before) and torch.equal(layer(x), before)
        layer.weight.mul_(2)
        assert torch.equal(layer(x), 2 * before)
        layer.weight.data = layer.weight.data * 0
        assert layer(x).eq(0).all()
        x.mul_(0)
        assert copied(x).eq(0).all()  # and changed inputs are rounded anew


@needs_vnni
def test_a_weight_is_packed_once_and_in_inference_mode_for_later_training():
    layer = Int8Linear(64, 64)
    layer.requires_grad_(False)
    with torch.inference_mode():
        layer(torch.randn(2, 64))
    packed = layer._int8
    x = torch.randn(2, 64, requires_grad=True)
    layer(x).sum().backward()
    assert layer._int8 is packed and x.grad.isfinite().all()


@needs_vnni
def test_a_module_is_built_with_them():
    module = ArcModel("bundled", lora=Lora(r=4), int8_products=True)
    module.build()
    assert sum(isinstance(layer, Int8Linear) for layer in module.causal_lm.modules()) == 70
    assert int8_weights(module.causal_lm) == sum(
        layer.weight.numel() for layer in module.causal_lm.modules() if isinstance(layer, Int8Linear)
    )
    assert any(isinstance(layer, Int8Linear) for layer in module._load("bundled").modules())  # of an ensemble


def test_they_are_refused_where_they_are_not_exact_or_not_there(monkeypatch):
    monkeypatch.setattr(int8_products, "exact", lambda: False)
    with pytest.raises(DataError, match="model.int8_products: this CPU has no exact 8-bit products"):
        ArcModel(scratch=Scratch(), int8_products=True).build()
    module = ArcModel(scratch=Scratch(), int8_products=True)
    device = SimpleNamespace(root_device=torch.device("cuda"))
    module._trainer = SimpleNamespace(strategy=device, barebones=False)
    with pytest.raises(DataError, match="model.int8_products: runs on a CPU"):
        module.configure_model()


def test_products_whose_sums_are_cut_off_are_not_exact(monkeypatch):
    uncached = exact.__wrapped__
    monkeypatch.setattr(int8_products, "_product", lambda *_: torch.full((1, 64), 32767.0))
    assert not uncached()

    def refuse(*_):
        raise RuntimeError("no kernel for this CPU")

    monkeypatch.setattr(int8_products, "_product", refuse)
    assert not uncached()
