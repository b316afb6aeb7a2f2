"""The fastest precision and attention backend of this machine, by measurements of milliseconds.

A processor's flags are no guide: without matrix units products in bfloat16 are several times slower than in float32 on
one machine, and twice as fast on the next.
"""

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_arc.data.batch import PackSegment
from lightning_arc.model.attention import blocks, cascade

WORTH = 1.2
"""Speed-up that an alternative must reach to replace the default, so that noise does not decide."""

PIECES = (PackSegment(0, 512, (64,) * 4, 0),)
"""The tree that attention backends are measured on."""


@lru_cache
def fastest_precision() -> Literal["bf16-mixed", "16-mixed", "32-true"]:
    """Return the fastest ``trainer.precision`` on this machine that does not harm training."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "32-true"
    wide, weight = torch.ones(512, 256), torch.ones(768, 256)
    narrow = weight.bfloat16()
    with torch.inference_mode():
        slow = _milliseconds(lambda: wide @ weight.T)
        fast = _milliseconds(lambda: wide.bfloat16() @ narrow.T)
    return "bf16-mixed" if fast * WORTH < slow else "32-true"


def computing_type(precision: str) -> torch.dtype:
    """Return the type of matrix products under a ``trainer.precision``."""
    if precision.startswith("bf16"):
        return torch.bfloat16
    if precision.startswith("64"):
        return torch.float64
    return torch.float16 if precision.startswith("16") else torch.float32


def fastest_attention(query: Tensor, key: Tensor) -> Literal["blocks", "cascade", "mask"]:
    """Return the fastest attention backend on a CPU for heads of these sizes; ``mask`` if torch lacks both others.

    Where gradients are enabled the backward pass is timed too.

    Args:
        query: ``(1, heads, S, head_dim)``.
        key: ``(1, kv_heads, K, head_dim)``.
    """
    if query.dtype not in (torch.bfloat16, torch.float16):
        return "cascade" if cascade.SUPPORTED else "mask"
    sizes = query.shape[1], key.shape[1], query.shape[3]
    return _fastest_attention(query.dtype, *sizes, torch.get_num_threads(), torch.is_grad_enabled())


@lru_cache
def _fastest_attention(
    dtype: torch.dtype, heads: int, kv_heads: int, width: int, threads: int, gradients: bool
) -> Literal["blocks", "cascade", "mask"]:
    if not (blocks.SUPPORTED and cascade.SUPPORTED):
        return "blocks" if blocks.SUPPORTED else "cascade" if cascade.SUPPORTED else "mask"
    n = sum(piece.n_tokens for piece in PIECES)
    with torch.inference_mode(False), torch.set_grad_enabled(gradients), torch.random.fork_rng([]):
        query, key, value = (
            torch.randn(1, h, n, width).to(dtype).requires_grad_(gradients) for h in (heads, kv_heads, kv_heads)
        )
        cut = blocks.blocks(PIECES, heads, dtype)

        def run(attend: Callable[[], Tensor]) -> None:
            out = attend()
            if gradients:
                torch.autograd.grad(out.float().sum(), (query, key, value))

        slow = _milliseconds(lambda: run(lambda: cascade.cascade(query, key, value, PIECES, None)))
        fast = _milliseconds(lambda: run(lambda: blocks.block_attention(query, key, value, cut, None)))
    return "blocks" if fast * WORTH < slow else "cascade"


def _milliseconds(work: Callable[[], object], times: int = 5) -> float:
    """Return the shortest of several runs after a warm-up; of fewer where they take longer than half a second."""
    work()
    taken: list[float] = []
    while len(taken) < times and sum(taken) < 0.5:
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken) * 1000


@lru_cache
def product_rate(dtype: torch.dtype, device: str = "cpu") -> float:
    """Return the floating-point operations a second of a linear layer's matrix product.

    Where a processor has no products in bfloat16, torch computes those of layers some ten times as fast as others.

    Args:
        dtype: of the factors and of the product.
        device: ``cpu`` or ``cuda``.
    """
    n = 8192 if device == "cuda" else 1024
    a = torch.ones(n, n, dtype=dtype, device=device)

    def work() -> None:
        nn.functional.linear(a, a)
        if device == "cuda":
            torch.cuda.synchronize()

    return 2 * n**3 / _milliseconds(work) * 1000
