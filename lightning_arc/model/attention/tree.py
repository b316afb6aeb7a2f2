"""Attention in packs: tokens see those of their own sequence, and shared prefixes are neither copied nor padded.

There are four backends with the same results. On a CPU, ``cascade`` lets all branches of a tree attend to its prefix at
once, and each to itself, and combines the two by their softmax denominators (`cascade.py`); where products in bfloat16
are fast, ``blocks`` lets blocks of tokens attend to all that they see (`blocks.py`). On a GPU, ``flex`` (FlexAttention)
skips the blocks of a pack in which no token sees another. ``mask``, a mask of the whole pack, works anywhere and serves
layers with a sliding window.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lightning_arc.data.batch import Pack, PackSegment
from lightning_arc.errors import DataError
from lightning_arc.model.attention.blocks import Block, block_attention, blocks
from lightning_arc.model.attention.cascade import cascade
from lightning_arc.model.attention.shared_prefix import PrefixedAttention, PromptKeys
from lightning_arc.model.machine import fastest_attention

NAME = "lightning_arc_tree"
"""Name under which transformers registers this attention."""

BLOCK = 128
"""Tokens of a block of FlexAttention, by which packs are padded on a GPU."""

LEAST_WIDTH = 16
"""Narrowest heads that FlexAttention's kernels take."""

HARMLESS = frozenset({"position_ids", "cache_position", "use_cache", "output_router_logits", "num_items_in_batch"})
"""Keyword arguments that models hand to their attention and that do not change what it computes."""

AttentionBackend = Literal["auto", "blocks", "cascade", "flex", "mask"]
"""How attention is computed; ``auto`` is ``flex`` on a GPU, and elsewhere the faster of ``blocks`` and ``cascade``."""


@dataclass(eq=False)
class PackedAttention:
    """Which tokens of a pack see which, in the forms that attention layers need.

    Args:
        segments: the pack's segments, in order.
        n_cached: tokens of the cached prefix, whose keys come before those of the pack.
        positions: ``(S,)`` place of each token in its sequence.
        visible_until: ``(S,)`` place in the pack before which later tokens see a token.
        backend: how it is computed.
    """

    segments: tuple[PackSegment, ...]
    n_cached: int
    positions: Tensor
    visible_until: Tensor
    backend: AttentionBackend
    _masks: dict[int | None, Tensor] = field(default_factory=dict)
    _cut: list[Block] | None = None

    def pad(self, more: int) -> None:
        """Append ``more`` padding tokens to the last branch; no token before them sees them."""
        *others, last = self.segments
        *branches, length = last.branches
        self.segments = (*others, replace(last, branches=(*branches, length + more)))
        n, device = len(self.visible_until), self.visible_until.device
        self.visible_until = torch.cat([self.visible_until, torch.arange(n + 1, n + more + 1, device=device)])
        self.positions = nn.functional.pad(self.positions, (0, more))

    def mask(self, window: int | None = None) -> Tensor:
        """Return the ``(S, n_cached + S)`` mask: true where a token (row) sees another.

        Args:
            window: how many tokens back a token sees, itself included; ``None`` for all.
        """
        if window not in self._masks:
            queries = torch.arange(len(self.visible_until), device=self.visible_until.device)[:, None]
            keys = self.keys_visible_until
            place = torch.arange(-self.n_cached, len(self.visible_until), device=self.visible_until.device)
            mask = (place <= queries) & (queries < keys)
            if window is not None:
                cached = torch.arange(self.n_cached, device=self.visible_until.device)
                mask &= self.positions[:, None] - torch.cat([cached, self.positions]) < window
            self._masks[window] = mask
        return self._masks[window]

    @cached_property
    def keys_visible_until(self) -> Tensor:
        """``(n_cached + S,)`` place in the pack before which each key is seen; all tokens see a cached prefix."""
        return torch.cat([self.visible_until.new_full((self.n_cached,), len(self.visible_until)), self.visible_until])

    def cut(self, query: Tensor) -> list[Block]:
        """Return the blocks of `block_attention`, made for the first layer's query and shared by all layers."""
        if self._cut is None:
            self._cut = blocks(self.segments, query.shape[1], query.dtype)
        return self._cut

    @cached_property
    def flex_blocks(self) -> BlockMask:
        """The blocks of FlexAttention; the pack's tokens are a multiple of `BLOCK`."""
        return block_mask(self.keys_visible_until, self.n_cached, len(self.visible_until))


def block_mask(keys_visible_until: Tensor, n_cached: int, n_queries: int) -> BlockMask:
    """Make the block mask of a pack without making the mask of its tokens.

    Args:
        keys_visible_until: ``(K,)`` place in the pack before which each key is seen.
        n_cached: keys before the pack's own.
        n_queries: tokens of the pack, a multiple of `BLOCK`.
    """
    n_keys, device = len(keys_visible_until), keys_visible_until.device
    padded = torch.nn.functional.pad(keys_visible_until, (0, -n_keys % BLOCK)).view(-1, BLOCK)
    latest, earliest = padded.amax(1), padded.amin(1)
    first_key = torch.arange(len(padded), device=device) * BLOCK - n_cached
    first_query = torch.arange(0, n_queries, BLOCK, device=device)[:, None]
    last_query = first_query + BLOCK - 1
    some = (first_key <= last_query) & (latest > first_query)
    whole = (first_key + BLOCK - 1 <= first_query) & (earliest > last_query)

    # Tensors, because with a number in the function the kernels would be compiled anew for each value.
    behind = torch.arange(n_keys, device=device) - n_cached

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (behind[key] <= query) & (query < keys_visible_until[key])

    return BlockMask.from_kv_blocks(
        *_ordered(some & ~whole), *_ordered(whole), BLOCK, sees, seq_lengths=(n_queries, n_keys)
    )


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each row the number of set blocks, and the places of those, followed by the others."""
    numbers = blocks.int()
    places = numbers.argsort(dim=-1, descending=True, stable=True).int()
    return numbers.sum(-1, dtype=torch.int32)[None, None], places[None, None]


def packed_attention(pack: Pack, backend: AttentionBackend = "auto") -> PackedAttention:
    """Return the visibility of a pack's tokens for the attention layers.

    Args:
        pack: the pack, on the device of the model.
        backend: how it is computed.
    """
    if backend == "auto" and pack.tokens.is_cuda:
        backend = "flex"
    return PackedAttention(pack.segments, pack.n_cached, pack.positions, pack.visible_until, backend)


@torch.compiler.disable  # it is other code for every pack; what it calls is compiled by itself
def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    packed: PackedAttention | PrefixedAttention | PromptKeys | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention of a layer, as transformers calls it; without ``packed`` it is the library's own.

    Args:
        module: the layer's attention.
        query: ``(1, heads, S, head_dim)``.
        key: ``(1, kv_heads, n_cached + S, head_dim)``.
        value: the same.
        attention_mask: ignored if ``packed`` is given.
        scaling: factor of the scores.
        dropout: dropout of attention weights.
        sliding_window: how many tokens back the layer sees.
        packed: the layout of trees in the sequence, or of answers that are generated together.
        kwargs: further arguments that the model passes to its attention.

    Returns:
        ``(1, S, heads, head_dim)``, and ``None`` for attention weights.

    Raises:
        DataError: names an unknown keyword argument, which may change what attention computes.
    """
    for name, given in kwargs.items():
        default = name == "is_causal"
        if name not in HARMLESS and given is not None and given is not default:
            raise DataError(f"{type(module).__name__} hands {name} to its attention, which is not supported")
    if isinstance(packed, PromptKeys):
        packed.add(key, value)
    if packed is None or isinstance(packed, PromptKeys):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, sliding_window=sliding_window, **kwargs
        )
    # Under autocast rotary embeddings return float32, and only the library's own attention is cast automatically.
    query, key = query.to(value.dtype), key.to(value.dtype)
    if isinstance(packed, PrefixedAttention):
        out = packed.attend(cast(int, module.layer_idx), query, key, value, scaling, sliding_window)
        return out.transpose(1, 2), None
    longest = max(segment.prefix + max(segment.branches) for segment in packed.segments)
    backend = fastest_attention(query, key) if packed.backend == "auto" else packed.backend
    if dropout or (sliding_window is not None and sliding_window < longest):
        out = _masked(query, key, value, packed.mask(sliding_window), scaling, dropout)
    elif backend == "flex" and (query.shape[-1] >= LEAST_WIDTH or not query.is_cuda):
        out = _flex(query, key, value, packed.flex_blocks, scaling)
    elif backend in ("mask", "flex") or value.shape[-1] != query.shape[-1]:
        out = _masked(query, key, value, packed.mask(), scaling, 0.0)
    elif backend == "blocks":
        out = block_attention(query, key, value, packed.cut(query), scaling)
    else:
        out = cascade(query, key, value, packed.segments, scaling)
    return out.transpose(1, 2), None


def _masked(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None, dropout: float) -> Tensor:
    attend = nn.functional.scaled_dot_product_attention
    if query.is_cuda:  # the memory-efficient kernels do not support heads that share keys
        groups = query.shape[1] // key.shape[1]
        return attend(query, repeat_kv(key, groups), repeat_kv(value, groups), mask, dropout, scale=scaling)
    return attend(query, key, value, mask, dropout, scale=scaling, enable_gqa=True)


def _flex(query: Tensor, key: Tensor, value: Tensor, blocks: BlockMask, scaling: float | None) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    if groups & (groups - 1):  # the kernels share keys among a power of two of heads
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    attend: Callable[..., Any] = flex_attention
    if query.is_cuda:
        attend = _compiled_flex()
    return attend(query, key, value, block_mask=blocks, scale=scaling, enable_gqa=True)


@lru_cache
def _compiled_flex() -> Callable[..., Tensor]:
    return torch.compile(flex_attention)


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def use_tree_attention(model: PreTrainedModel) -> None:
    """Let a model's layers attend by `tree_attention`; without packs the model works as before.

    Raises:
        DataError: if its architecture does not allow another attention than its own.
    """
    try:
        model.set_attn_implementation(NAME)
    except ValueError as error:
        raise DataError(f"{type(model).__name__}: its attention cannot be replaced: {error}") from error
