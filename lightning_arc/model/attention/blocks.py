"""Attention in packs by matrix products of blocks, for processors whose products in bfloat16 are fast.

A tree's tokens are computed a block at a time. A block attends to the prefix, and to the keys from the start of its
first branch to its own end, where a mask hides invisible ones. Query heads that share keys are rows of one product.
Only one block's scores exist at a time; the backward pass recomputes them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_arc.data.batch import PackSegment
from lightning_arc.model.attention.operators import private_operator
from lightning_arc.model.autograd import Context

_softmax = private_operator("_softmax", "self dim half_to_float out", "out")
_softmax_backward = private_operator("_softmax_backward_data", "grad_output output dim input_dtype grad_input", "out")
SUPPORTED = None not in (_softmax, _softmax_backward)
"""Whether this torch has the operators that `block_attention` calls."""

ROWS = 2048
"""Rows of a block's scores, all heads together: so few that its scores stay in the cache."""

STEP = 64
"""Keys of a block are a multiple of this, and its tokens of half: products of a new size take time to prepare."""


@dataclass(frozen=True)
class Block:
    """Tokens of a tree that attend together.

    Args:
        first: place in the pack of the first token.
        n_tokens: number of them.
        n_rows: the same, with padding.
        prefix: range of the keys that all tokens see.
        own: range of the keys that the mask is about.
        n_keys: number of keys in the product: prefix, own, and padding.
        mask: ``(n_rows, own and padding)``, added to scores: -inf where a token does not see a key.
    """

    first: int
    n_tokens: int
    n_rows: int
    prefix: slice
    own: slice
    n_keys: int
    mask: Tensor

    @property
    def n_prefix(self) -> int:
        """Keys that all tokens see."""
        return self.prefix.stop - self.prefix.start


def blocks(segments: Sequence[PackSegment], heads: int, dtype: torch.dtype) -> list[Block]:
    """Cut a pack into blocks.

    Args:
        segments: what lies in the pack, in order.
        heads: query heads.
        dtype: of queries and keys.
    """
    rows = min(max(ROWS // heads // STEP * STEP, STEP), 4 * STEP)
    found: list[Block] = []
    start, n_cached = 0, segments[0].prefix if segments[0].prefix_cached else 0
    for segment in segments:
        found += _of_piece(segment, start, n_cached, rows, dtype)
        start += segment.n_tokens
    return found


def _of_piece(segment: PackSegment, start: int, n_cached: int, rows: int, dtype: torch.dtype) -> Iterator[Block]:
    """Yield the blocks of a segment that begins at ``start`` of its pack, behind ``n_cached`` cached keys."""
    behind = start + (0 if segment.prefix_cached else segment.prefix)  # the place behind the prefix
    bounds = behind + torch.tensor([0, *segment.branches]).cumsum(0)
    stop = int(bounds[-1])
    for first in range(start, stop, rows):
        end = min(first + rows, stop)
        branch = int(torch.searchsorted(bounds, first, right=True)) - 1  # -1 within the prefix
        seen, own = (first, first) if branch < 0 else (behind, int(bounds[branch]))
        prefix = slice(0 if segment.prefix_cached else n_cached + start, n_cached + seen)
        queries, keys = torch.arange(first, end)[:, None], torch.arange(own, end)
        ends = bounds[torch.searchsorted(bounds, keys, right=True).clamp(max=len(bounds) - 1)]
        visible_until = ends.where(keys >= behind, stop)
        n_rows = end - first + -(end - first) % (STEP // 2)
        n_keys = prefix.stop - prefix.start + end - own
        mask = torch.zeros(n_rows, end - own + -n_keys % STEP, dtype=dtype)
        mask[: end - first, : end - own].masked_fill_((keys > queries) | (visible_until <= queries), -torch.inf)
        mask[:, end - own :] = -torch.inf
        yield Block(
            first,
            end - first,
            n_rows,
            prefix,
            slice(n_cached + own, n_cached + end),
            n_keys + -n_keys % STEP,
            mask,
        )


def block_attention(query: Tensor, key: Tensor, value: Tensor, cut: Sequence[Block], scaling: float | None) -> Tensor:
    """Attend within a pack.

    Args:
        query: ``(1, heads, S, head_dim)``.
        key: ``(1, kv_heads, n_cached + S, head_dim)``.
        value: the same.
        cut: the pack's blocks.
        scaling: what scores are multiplied by, ``None`` for ``head_dim ** -0.5``.

    Returns:
        ``(1, heads, S, head_dim)``.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _BlockAttention.apply(query, key, value, cut, scaling)


class _Context(Context, Protocol):
    cut: Sequence[Block]
    scaling: float
    n_keys: int


class _BlockAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context, query: Tensor, key: Tensor, value: Tensor, cut: Sequence[Block], scaling: float
    ) -> Tensor:
        n, groups = query.shape[2], query.shape[1] // key.shape[1]
        rows, keys, values = _by_token(query, groups, scaling), _padded(key[0]), _padded(value[0])
        out, work = torch.empty_like(rows), _Work(rows, groups, cut, 2)
        with torch.autocast(query.device.type, enabled=False):
            for block in cut:
                given = work.probabilities(block, work.rows(block, rows), work.keys(0, block, keys))
                torch.bmm(given, work.keys(1, block, values), out=work.rows(block, out))
        ctx.save_for_backward(rows, keys, values)
        ctx.cut, ctx.scaling, ctx.n_keys = cut, scaling, key.shape[2]
        return _by_head(out, groups, n)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        assert _softmax_backward is not None  # as `block_attention` is `SUPPORTED`
        rows, keys, values = ctx.saved_tensors
        n, groups = gradient.shape[2], gradient.shape[1] // len(keys)
        of_out, of_rows = _by_token(gradient, groups, 1.0), torch.empty_like(rows)
        work, wide = _Work(rows, groups, ctx.cut, 3), torch.promote_types(keys.dtype, torch.float32)
        of_keys, of_values = (torch.zeros_like(x, dtype=wide) for x in (keys, values))
        with torch.autocast(gradient.device.type, enabled=False):
            for block in ctx.cut:
                own_rows, own_keys, of_own = work.rows(block, rows), work.keys(0, block, keys), work.rows(block, of_out)
                given = work.probabilities(block, own_rows, own_keys)
                work.add(of_values, block, torch.bmm(given.mT, of_own, out=work.of_keys(block)))
                of_given = torch.bmm(of_own, work.keys(1, block, values).mT, out=work.scores(2, block))
                of_scores = work.scores(0, block)
                _softmax_backward(of_given, given, -1, given.dtype, grad_input=of_scores)
                torch.bmm(of_scores, own_keys, out=work.rows(block, of_rows))
                work.add(of_keys, block, torch.bmm(of_scores.mT, own_rows, out=work.of_keys(block)))
        found = (x[None, :, : ctx.n_keys].to(keys.dtype) for x in (of_keys, of_values))
        return _by_head(of_rows.mul_(ctx.scaling), groups, n), *found, None, None


class _Work:
    """Buffers in which the blocks of a pack are computed one after the other.

    Args:
        like: ``(kv_heads, …, head_dim)`` tensor with the buffers' type.
        groups: query heads that share keys.
        cut: the blocks.
        scores: number of buffers for a block's scores.
    """

    def __init__(self, like: Tensor, groups: int, cut: Sequence[Block], scores: int) -> None:
        self.groups, self.kv_heads, width = groups, len(like), like.shape[-1]
        area, longest = max(b.n_rows * b.n_keys for b in cut), max(b.n_keys for b in cut)
        self._scores = [like.new_empty(self.kv_heads * groups * area) for _ in range(scores)]
        self._keys = [like.new_zeros(self.kv_heads, longest, width) for _ in range(2)]
        self._of_keys = like.new_empty(self.kv_heads, longest, width)
        self._prefixes: list[slice | None] = [None, None]

    def rows(self, block: Block, x: Tensor) -> Tensor:
        """Return a block's rows of ``(kv_heads, S * groups, head_dim)``."""
        return x[:, block.first * self.groups : (block.first + block.n_rows) * self.groups]

    def keys(self, i: int, block: Block, x: Tensor) -> Tensor:
        """Return the rows of ``(kv_heads, K, head_dim)`` that a block sees, in buffer ``i`` if not adjacent."""
        if block.prefix.stop == block.own.start:
            return x[:, block.prefix.start : block.prefix.start + block.n_keys]
        place, start = self._keys[i], block.n_prefix
        if self._prefixes[i] != block.prefix:
            place[:, :start] = x[:, block.prefix]
            self._prefixes[i] = block.prefix
        place[:, start : start + block.own.stop - block.own.start] = x[:, block.own]
        return place[:, : block.n_keys]

    def of_keys(self, block: Block) -> Tensor:
        """Return the buffer for the gradient of the keys that a block sees."""
        return self._of_keys[:, : block.n_keys]

    def add(self, total: Tensor, block: Block, part: Tensor) -> None:
        """Add the gradient of the keys that a block sees to that of all keys; that of padding is zero."""
        start = block.n_prefix
        total[:, block.prefix] += part[:, :start]
        total[:, block.own] += part[:, start : start + block.own.stop - block.own.start]

    def scores(self, i: int, block: Block) -> Tensor:
        """Return buffer ``i`` for ``(kv_heads, groups * rows, keys)`` scores."""
        shape = self.kv_heads, block.n_rows * self.groups, block.n_keys
        return self._scores[i][: shape[0] * shape[1] * shape[2]].view(shape)

    def probabilities(self, block: Block, rows: Tensor, keys: Tensor) -> Tensor:
        """Return the attention weights of a block's rows, zero in rows of padding."""
        assert _softmax is not None  # as `block_attention` is `SUPPORTED`
        scores = torch.bmm(rows, keys.mT, out=self.scores(0, block))
        masked = scores.view(self.kv_heads, block.n_rows, self.groups, block.n_keys)[..., -block.mask.shape[1] :]
        masked += block.mask[:, None]
        given = self.scores(1, block)
        _softmax(scores, -1, False, out=given)
        given[:, block.n_tokens * self.groups :] = 0
        return given


def _by_token(x: Tensor, groups: int, factor: float) -> Tensor:
    """Return ``(kv_heads, (S + padding) * groups, head_dim)`` of ``(1, heads, S, head_dim)``, multiplied."""
    _, heads, n, width = x.shape
    rows = x.new_zeros(heads // groups, n + STEP // 2, groups, width)
    torch.mul(x[0].unflatten(0, (-1, groups)).transpose(1, 2), factor, out=rows[:, :n])
    return rows.flatten(1, 2)


def _by_head(rows: Tensor, groups: int, n: int) -> Tensor:
    """Return ``(1, heads, n, head_dim)`` of ``(kv_heads, (n + padding) * groups, head_dim)``."""
    return rows.unflatten(1, (-1, groups))[:, :n].transpose(1, 2).flatten(0, 1)[None]


def _padded(x: Tensor) -> Tensor:
    """Return ``(kv_heads, K + padding, head_dim)`` of ``(kv_heads, K, head_dim)``."""
    return F.pad(x, (0, 0, 0, STEP))
