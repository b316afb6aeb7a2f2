"""Attention in packs on a CPU: prefixes, branches behind prefixes, and branches in themselves, each in one call.

A branch's softmax runs over its prefix and itself. Both parts are computed apart, each with the logarithm of its
softmax denominator, and put together by these (Milakov and Gimelshein, 2018). So no prefix is copied and all branches
of a tree read it in one matrix product. The gradients of the parts are those of attention with the denominator of the
whole (as in ring attention: Liu et al., 2023), so that nothing is approximated.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lightning_arc.data.batch import PackSegment
from lightning_arc.model.attention.operators import private_operator
from lightning_arc.model.autograd import Context

_FLASH = "_scaled_dot_product_flash_attention_for_cpu"
_forward = private_operator(_FLASH, "query key value dropout_p is_causal attn_mask scale")
_backward = private_operator(
    f"{_FLASH}_backward", "grad_out query key value out logsumexp dropout_p is_causal attn_mask scale"
)
SUPPORTED = None not in (_forward, _backward)
"""Whether this torch has the operators that `cascade` calls."""

PADDED = 1.25
"""Largest ratio of the longest to the shortest branch among those that are computed together."""


@dataclass(frozen=True)
class Span:
    """Places of a pack that attend together.

    Args:
        queries: where the queries begin and end.
        keys: where the keys begin and end.
        causal: whether each query sees the keys up to its own place only; queries and keys are then the same places.
    """

    queries: slice
    keys: slice
    causal: bool


def spans(segments: Sequence[PackSegment]) -> tuple[list[Span], list[tuple[int, int]]]:
    """Return the spans that attend to prefixes, and each branch's start and length, as it attends to itself too.

    Keys are counted from the first cached one, queries and branches from the first token of the pack.
    """
    found, branches, place = [], [], 0
    n_cached = segments[0].prefix if segments[0].prefix_cached else 0
    for segment in segments:
        prefix = slice(place, place + segment.prefix)
        if not segment.prefix_cached:
            found.append(Span(prefix, prefix, True))
        start = place = prefix.stop
        for length in segment.branches:
            branches.append((place - n_cached, length))
            place += length
        found.append(Span(slice(start - n_cached, place - n_cached), prefix, False))
    return found, branches


def groups(branches: Sequence[tuple[int, int]]) -> Iterator[Tensor]:
    """Put branches of similar length together.

    Args:
        branches: start and length of each.

    Yields:
        ``(n, longest)`` places of the tokens of ``n`` branches, -1 behind their ends.
    """
    ordered = sorted(branches, key=lambda branch: branch[1])
    first = 0
    for i in range(1, len(ordered) + 1):
        if i == len(ordered) or ordered[i][1] > PADDED * ordered[first][1]:
            starts, lengths = torch.tensor(ordered[first:i]).T[:, :, None]
            offsets = torch.arange(int(lengths.max()))
            yield torch.where(offsets < lengths, starts + offsets, -1)
            first = i


def cascade(
    query: Tensor, key: Tensor, value: Tensor, segments: Sequence[PackSegment], scaling: float | None
) -> Tensor:
    """Attend within a pack.

    Args:
        query: ``(1, heads, S, head_dim)``.
        key: ``(1, kv_heads, n_cached + S, head_dim)``.
        value: the same.
        segments: what lies in the pack.
        scaling: what scores are multiplied by, ``None`` for ``head_dim ** -0.5``.

    Returns:
        ``(1, heads, S, head_dim)``.
    """
    return _Cascade.apply(query, key, value, segments, scaling)


class _Context(Context, Protocol):
    segments: Sequence[PackSegment]
    scaling: float | None


class _Cascade(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        segments: Sequence[PackSegment],
        scaling: float | None,
    ) -> Tensor:
        assert _forward is not None  # as `cascade` is `SUPPORTED`
        _, heads, n, width = query.shape
        out = query.new_empty(1, n, heads, width).transpose(1, 2)
        sums = query.new_empty(1, n, heads, dtype=torch.promote_types(query.dtype, torch.float32)).transpose(1, 2)
        found, branches = spans(segments)
        for span in found:
            q, k = (slice(None), slice(None), span.queries), (slice(None), slice(None), span.keys)
            out[q], sums[q] = _forward(query[q], key[k], value[k], 0.0, span.causal, scale=scaling)
        held = key.shape[2] - n
        rows, row_sums = out.transpose(1, 2)[0], sums.transpose(1, 2)[0]
        for places in groups(branches):
            real = places >= 0
            own = _gathered(query, places), _gathered(key, places, held), _gathered(value, places, held)
            part, part_sums = (x.transpose(1, 2)[real] for x in _forward(*own, 0.0, True, scale=scaling))
            at = places[real]
            both = torch.logaddexp(row_sums[at], part_sums)
            shares = (row_sums[at] - both).exp_()[..., None], (part_sums - both).exp_()[..., None]
            rows[at] = (rows[at] * shares[0] + part * shares[1]).to(rows.dtype)
            row_sums[at] = both
        ctx.save_for_backward(query, key, value, out, sums)
        ctx.segments, ctx.scaling = segments, scaling
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, sums = ctx.saved_tensors
        grads = [torch.zeros_like(x) for x in (query, key, value)]
        found, branches = spans(ctx.segments)
        for span in found:
            q, k = (slice(None), slice(None), span.queries), (slice(None), slice(None), span.keys)
            parts = _gradients(gradient[q], query[q], key[k], value[k], out[q], sums[q], span.causal, ctx.scaling)
            for grad, part, at in zip(grads, parts, (q, k, k), strict=True):
                grad[at] += part
        held = key.shape[2] - query.shape[2]
        for places in groups(branches):
            real = places >= 0
            own = _gathered(query, places), _gathered(key, places, held), _gathered(value, places, held)
            around = _gathered(gradient, places), *own, _gathered(out, places), _gathered(sums, places)
            parts = _gradients(*around, True, ctx.scaling)
            for grad, part, offset in zip(grads, parts, (0, held, held), strict=True):
                grad.transpose(1, 2)[0].index_add_(0, places[real] + offset, part.transpose(1, 2)[real])
        return *grads, None, None


def _gathered(x: Tensor, places: Tensor, offset: int = 0) -> Tensor:
    """Return ``(n, heads, longest, …)`` rows of ``(1, heads, S, …)``; zeros where the place is -1."""
    rows = x.transpose(1, 2)[0][(places + offset).clamp(min=0)]
    rows[places < 0] = 0
    return rows.transpose(1, 2)


def _gradients(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    sums: Tensor,
    causal: bool,
    scaling: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value through the scores of these keys; ``out`` is of all keys."""
    shared = query.shape[1] // key.shape[1]
    if shared > 1:  # the kernel wants as many keys as queries
        key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    assert _backward is not None  # as `cascade` is `SUPPORTED`
    of_query, *others = _backward(gradient, query, key, value, out, sums, 0.0, causal, scale=scaling)
    return of_query, *(x.unflatten(1, (-1, shared)).sum(2) for x in others)
