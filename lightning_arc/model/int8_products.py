"""Products with frozen weights in 8-bit integers, for CPUs whose products in 16 bits are slow.

Inputs and weights are rounded to 8 bits, with a scale for each row, or for each group of a long row (vector-wise
quantization: Dettmers et al., 2022). Their products are summed in 32 bits. The gradient of an input is such a product
with the transposed weight (Wortsman et al., 2023).
"""

import math
import weakref
from functools import lru_cache
from typing import Any, Protocol

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_arc.errors import DataError
from lightning_arc.model.autocast import autocast_type
from lightning_arc.model.autograd import Context

GROUP = 640
"""Most inputs that share a scale: those of Qwen's ``down_proj`` have outliers, beside which others would round to 0."""

LEAST = 1e-30
"""Least largest number of a group, so that zeros have a scale."""

ROWS = 256
"""Rows that are rounded at once, so that they stay in a CPU's cache."""

NARROWEST = 64
"""Least width of a layer, in and out, that is replaced."""

ZERO = 128
"""The unsigned integer that stands for 0 in inputs; VNNI multiplies unsigned by signed integers."""


class Packed:
    """A matrix in 8-bit integers, in the order in which this CPU multiplies it.

    Args:
        weight: ``(out, in)``.
    """

    def __init__(self, weight: Tensor) -> None:
        self.n_groups = math.ceil(weight.shape[1] / GROUP)
        self._groups = []
        for part in weight.float().chunk(self.n_groups, 1):
            integers, scales = _round(part)
            signed = (integers.to(torch.int16) - ZERO).to(torch.int8).contiguous()
            self._groups.append((torch.ops.onednn.qlinear_prepack(signed, None), scales.flatten()))
        self._zeros = torch.zeros(len(weight), dtype=torch.long)

    def multiply(self, x: Tensor) -> Tensor:
        """Return ``(…, out)`` of ``(…, in)``, in the type of ``x``."""
        out: Tensor | None = None
        for (integers, scales), (weight, of_weight) in zip(
            _LATEST.rounded(x, self.n_groups), self._groups, strict=True
        ):
            part = _product(integers, weight, of_weight, self._zeros)
            out = part.mul_(scales) if out is None else out.addcmul_(part, scales)
        assert out is not None  # a weight has inputs
        return out.to(x.dtype).unflatten(0, x.shape[:-1])


class Int8Weight:
    """A frozen weight and its transpose in 8-bit integers; the transpose is made when a gradient needs it.

    Args:
        weight: ``(out, in)``.
    """

    def __init__(self, weight: Tensor) -> None:
        self._weight, self._source = weight, _state(weight)
        self._forward = Packed(weight.detach())
        self._transposed: Packed | None = None

    def holds(self, weight: Tensor) -> bool:
        """Whether this is made of a weight as it is now. Changes through ``weight.data`` in place are not seen."""
        return self._weight is weight and self._source == _state(weight)

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``(…, out)`` of ``(…, in)``, in the type of ``x``."""
        out = self._forward.multiply(x)
        return out if bias is None else out.add_(bias)

    def gradient(self, of_output: Tensor) -> Tensor:
        """Return the ``(…, in)`` gradient of an input, of the ``(…, out)`` gradient of its output."""
        if self._transposed is None:
            self._transposed = Packed(self._weight.detach().T)
        return self._transposed.multiply(of_output)

    def __deepcopy__(self, memo: object) -> "Int8Weight":
        """Return itself: a copied layer has another weight, which `holds` tells."""
        return self


class Int8Linear(nn.Linear):
    """A linear layer that computes in 8-bit integers on a CPU, unless its weight is being trained."""

    _int8: Int8Weight | None = None

    def int8_weight(self, x: Tensor) -> Int8Weight | None:
        """Return the weight to multiply ``x`` by; ``None`` if that is the weight itself."""
        weight = self.weight
        if x.device.type != "cpu" or (weight.requires_grad and torch.is_grad_enabled()):
            return None
        if self._int8 is None or not self._int8.holds(weight):
            with torch.inference_mode(False), torch.no_grad():
                self._int8 = Int8Weight(weight)
        return self._int8

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(…, out)`` of ``(…, in)``."""
        weight = self.int8_weight(x)
        if weight is None:
            return super().forward(x)
        dtype = autocast_type("cpu") or x.dtype
        return _Linear.apply(x.to(dtype), weight, self.bias)


def use_int8_products(model: PreTrainedModel) -> None:
    """Let the linear layers of a model's layers compute in 8-bit integers; names, weights and files stay the same.

    Args:
        model: a causal language model; its embedding and its head compute as before.

    Raises:
        DataError: if this CPU has no exact 8-bit products.
    """
    if not exact():
        raise DataError("model.int8_products: this CPU has no exact 8-bit products (VNNI); leave it out")
    for module in _linear_layers(model):
        module.__class__ = Int8Linear


def int8_weights(model: PreTrainedModel) -> int:
    """Return the number of frozen weights that are held in 8-bit integers too."""
    return sum(m.weight.numel() for m in _linear_layers(model) if not m.weight.requires_grad)


def _linear_layers(model: PreTrainedModel) -> list[nn.Linear]:
    layers: nn.Module = model.get_decoder().layers
    tuners = [m for m in layers.modules() if isinstance(m, BaseTunerLayer)]
    adapters = {id(m) for tuner in tuners for m in tuner.modules()} - {id(tuner.get_base_layer()) for tuner in tuners}
    found = [m for m in layers.modules() if isinstance(m, nn.Linear) and id(m) not in adapters]
    return [m for m in found if type(m) in (nn.Linear, Int8Linear) and min(m.in_features, m.out_features) >= NARROWEST]


@lru_cache
def exact() -> bool:
    """Whether this CPU sums products of 8-bit integers exactly: without VNNI, sums of two may exceed 16 bits."""
    largest, weight = torch.full((1, 64), 255, dtype=torch.uint8), torch.full((64, 64), 127, dtype=torch.int8)
    try:
        packed = torch.ops.onednn.qlinear_prepack(weight, None)
        product = _product(largest, packed, torch.ones(64), torch.zeros(64, dtype=torch.long))
    except (AttributeError, TypeError, RuntimeError):  # another kind of CPU, or another torch
        return False
    return bool((product == (255 - ZERO) * 127 * 64).all())


def _product(integers: Tensor, weight: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
    """Return the ``(N, out)`` float32 product of ``(N, in)`` unsigned integers and a packed weight."""
    return torch.ops.onednn.qlinear_pointwise(
        integers, 1.0, ZERO, weight, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )


def _round(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round ``(N, in)`` numbers to 8 bits; return ``(N, in)`` unsigned integers and their ``(N, 1)`` scales."""
    scales = torch.maximum(x.amax(1, keepdim=True), x.amin(1, keepdim=True).neg_()).float()
    scales.clamp_(min=LEAST).div_(127)
    integers, inverse = torch.empty(x.shape, dtype=torch.uint8), scales.reciprocal()
    half = torch.tensor(ZERO + 0.5)  # conversion cuts off
    for at in range(0, len(x), ROWS):
        rows = slice(at, at + ROWS)
        integers[rows].copy_(torch.addcmul(half, x[rows], inverse[rows]))
    return integers, scales


class _Latest:
    """The latest rounded input: the projections of an attention layer, and two of a feed-forward layer, share it."""

    def __init__(self) -> None:
        self._input: weakref.ref[Tensor] | None = None
        self._key: Any = None
        self._rounded: list[tuple[Tensor, Tensor]] = []

    def rounded(self, x: Tensor, n_groups: int) -> list[tuple[Tensor, Tensor]]:
        key = _state(x), n_groups
        if self._input is None or self._input() is not x or self._key != key:
            self._rounded = [_round(part) for part in x.flatten(0, -2).chunk(n_groups, 1)]
            self._input, self._key = weakref.ref(x), key
        return self._rounded


_LATEST = _Latest()


def _state(x: Tensor) -> tuple[int, int]:
    """Return what changes when a tensor's numbers do."""
    return x.data_ptr(), 0 if x.is_inference() else x._version


class _LinearContext(Context, Protocol):
    weight: Int8Weight


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _LinearContext, x: Tensor, weight: Int8Weight, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return weight.linear(x, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _LinearContext, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of_input = ctx.weight.gradient(gradient) if ctx.needs_input_grad[0] else None
        return of_input, None, gradient.flatten(0, -2).sum(0) if ctx.needs_input_grad[2] else None
