"""Faster equivalents of the libraries' layers, with fewer passes over memory and less memory for the backward pass.

A layer is replaced because of what it computes, not of its name: on random input both must give the same output.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_arc.model.autocast import autocast_type
from lightning_arc.model.autograd import Context
from lightning_arc.model.int8_products import Int8Linear, Int8Weight

SAME, SAME_IN_16_BITS = 1e-5, 1e-2
"""Largest difference between the outputs of a layer and its replacement, as a share of the largest number."""


def use_fast_lora(model: nn.Module) -> None:
    """Replace the adapter layers of a model by faster ones; names, weights and files stay the same."""
    for module in model.modules():
        if type(module) is LoraLinear:
            module.__class__ = FastLoraLinear


def use_fast_layers(model: nn.Module) -> None:
    """Replace layers of a model by faster ones where possible; names, weights and files stay the same."""
    use_fast_lora(model)
    for module in model.modules():
        if isinstance(module, FastRMSNorm | FastSwiGLU):
            continue
        own: type = type(module)
        norm = next((fast for fast in (FastRMSNorm, FastOffsetRMSNorm) if _is_rms_norm(module, fast.offset)), None)
        if norm is not None:
            module.__class__ = _fast(norm, own)
        elif _is_swiglu(module):
            module.__class__ = _fast(FastSwiGLU, own)


@lru_cache
def _fast(fast: type, own: type) -> type:
    return type(own.__name__, (fast, own), {"__module__": own.__module__})


def _computing_type(x: Tensor) -> torch.dtype:
    """Return the type of a matrix product with ``x``."""
    return autocast_type(x.device.type) or x.dtype


class FastLoraLinear(LoraLinear):
    """peft's linear layer with adapters: an adapter's part is added in place, its weights stay in float32."""

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """Return ``(…, out)`` of ``(…, in)``."""
        base, names = self.base_layer, [name for name in self.active_adapters if name in self.lora_A]
        if kwargs or args or self.disable_adapters or self.merged or not names or not all(map(self._is_plain, names)):
            return super().forward(x, *args, **kwargs)
        if type(base) not in (nn.Linear, Int8Linear) or base.weight.requires_grad:
            return super().forward(x)
        dtype = _computing_type(x)
        x = x.to(dtype)
        parts = [(self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name]) for name in names]
        scales = [scale for *_, scale in parts]
        factors = [w for a, b, _ in parts for w in (a, b)]
        bias = None if base.bias is None else base.bias.to(dtype)
        int8 = base.int8_weight(x) if isinstance(base, Int8Linear) else None
        weight = base.weight.to(dtype) if int8 is None else int8
        return _LoraLinear.apply(x, weight, bias, scales, *factors)

    def _is_plain(self, name: str) -> bool:
        """Whether an adapter is two products and nothing else."""
        dropout = self.lora_dropout[name]
        drops = self.training and not isinstance(dropout, nn.Identity) and getattr(dropout, "p", 1.0) > 0
        own = type(self.lora_A[name]) is type(self.lora_B[name]) is nn.Linear and self.lora_B[name].bias is None
        return own and not drops and not self.fan_in_fan_out and name not in getattr(self, "lora_variant", {})


class _LoraContext(Context, Protocol):
    int8: Int8Weight | None
    scales: list[float]
    shape: torch.Size


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _LoraContext,
        x: Tensor,
        weight: Tensor | Int8Weight,
        bias: Tensor | None,
        scales: list[float],
        *factors: Tensor,
    ) -> Tensor:
        rows, plain, ctx.int8 = x.flatten(0, -2), None, None
        with torch.autocast(x.device.type, enabled=False):
            if isinstance(weight, Int8Weight):
                ctx.int8, out = weight, weight.linear(x, bias).flatten(0, -2)
            else:
                plain, out = weight, F.linear(rows, weight, bias)
            inner = []
            for a, b, scale in zip(factors[::2], factors[1::2], scales, strict=True):
                inner.append(rows @ a.to(x.dtype).T)
                out.addmm_(inner[-1], b.to(x.dtype).T, alpha=scale)
        ctx.save_for_backward(rows, plain, *factors, *inner)
        ctx.scales, ctx.shape = scales, x.shape
        return out.unflatten(0, x.shape[:-1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _LoraContext, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, *others = ctx.saved_tensors
        n, wanted = len(ctx.scales), ctx.needs_input_grad
        factors, inner = others[: 2 * n], others[2 * n :]
        g, found = gradient.flatten(0, -2), []
        with torch.autocast(rows.device.type, enabled=False):
            of_x = None
            if wanted[0]:
                of_x = g @ weight if ctx.int8 is None else ctx.int8.gradient(g)
            for i, scale in enumerate(ctx.scales):
                a, b = factors[2 * i : 2 * i + 2]
                of_inner = (g @ b.to(g.dtype)).mul_(scale)
                if of_x is not None:
                    of_x.addmm_(of_inner, a.to(g.dtype))
                found.append((of_inner.T @ rows).to(a.dtype) if wanted[4 + 2 * i] else None)
                found.append((inner[i].T @ g).T.to(b.dtype).mul_(scale) if wanted[5 + 2 * i] else None)
        return None if of_x is None else of_x.view(ctx.shape), None, None, None, *found


class FastRMSNorm(nn.Module):
    """A root-mean-square norm (Zhang and Sennrich, 2019) whose output has the type of the products that follow."""

    weight: Tensor
    offset = 0.0
    """Offset that is added to the weight."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(…, d)`` of ``(…, d)``."""
        return _RMSNorm.apply(x, self.weight, self.offset, _epsilon(self), _computing_type(x))


class FastOffsetRMSNorm(FastRMSNorm):
    """A `FastRMSNorm` whose weight is stored as its difference from 1, as in Gemma and Qwen3.5."""

    offset = 1.0


class _NormContext(Context, Protocol):
    offset: float


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _NormContext, x: Tensor, weight: Tensor, offset: float, epsilon: float, dtype: torch.dtype
    ) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        share = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, share)
        ctx.offset = offset
        return (wide * share).mul_(weight.to(wide.dtype) + offset).to(dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _NormContext, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, share = ctx.saved_tensors
        normal = x * share  # of the wide type, which share has
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (gradient * normal).flatten(0, -2).sum(0).to(weight.dtype)
        of_normal = gradient * (weight.to(share.dtype) + ctx.offset)
        along = (of_normal * normal).mean(-1, keepdim=True)
        return of_normal.sub_(normal.mul_(along)).mul_(share).to(x.dtype), of_weight, None, None, None


class FastSwiGLU(nn.Module):
    """A gated feed-forward layer (Shazeer, 2020) that keeps the two inputs of its gating and recomputes the rest."""

    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(…, d)`` of ``(…, d)``."""
        return self.down_proj(_Gated.apply(self.gate_proj(x), self.up_proj(x)))


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return _times(F.silu(gate), up)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(gradient * up, gate), _times(F.silu(gate), gradient)


def _times(x: Tensor, y: Tensor) -> Tensor:
    """Return a product, written over ``x`` where that is fast; in 16 bits this takes processors twice as long."""
    return x.mul_(y) if x.dtype.itemsize > 2 else x * y


def _epsilon(norm: nn.Module) -> float | None:
    return getattr(norm, "variance_epsilon", getattr(norm, "eps", None))


def _is_rms_norm(module: nn.Module, offset: float) -> bool:
    if "RMSNorm" not in type(module).__name__ or _epsilon(module) is None:
        return False
    weights = dict(module.named_parameters())
    if [*weights] != ["weight"]:
        return False
    weight = weights["weight"]
    if weight.dim() != 1 or weight.is_meta:
        return False
    x = _random(len(weight)).to(weight.device)
    return _same(module, x, lambda: _RMSNorm.apply(x, weight, offset, _epsilon(module), x.dtype))


def _is_swiglu(module: nn.Module) -> bool:
    parts = dict(module.named_children())
    if parts.keys() - {"act_fn"} != {"gate_proj", "up_proj", "down_proj"}:
        return False
    gate, up, down = (parts[name] for name in ("gate_proj", "up_proj", "down_proj"))
    width, weight = getattr(gate, "in_features", None), getattr(gate, "weight", None)
    if width is None or weight is None or weight.is_meta:
        return False
    x = _random(width).to(weight)
    return _same(module, x, lambda: down(F.silu(gate(x)) * up(x)))


def _random(width: int) -> Tensor:
    """Return ``(3, width)`` numbers, the same on any machine, and whatever the default device is."""
    return torch.randn(3, width, generator=torch.Generator("cpu").manual_seed(0), device="cpu")


@torch.no_grad()
def _same(module: nn.Module, x: Tensor, fast: Callable[[], Tensor]) -> bool:
    try:
        own, ours = module(x), fast()
    except Exception:  # it wants something else
        return False
    tolerance = SAME if own.dtype.itemsize > 2 else SAME_IN_16_BITS
    return own.shape == ours.shape and bool((own - ours).abs().max() <= tolerance * own.abs().max())
