"""The tree forward: hidden states of packs, in which every branch has what it would have as a separate sequence."""

from collections.abc import Iterator
from itertools import zip_longest

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.cache_utils import Cache, DynamicCache

from lightning_arc.data.batch import Pack, TreeBatch
from lightning_arc.model.attention.tree import BLOCK, AttentionBackend, packed_attention


def pack_hidden(
    decoder: nn.Module, pack: Pack, backend: AttentionBackend = "auto", cache: Cache | None = None
) -> Tensor:
    """Run a pack.

    Args:
        decoder: the model without its head (``model.get_decoder()``), attending as `use_tree_attention` lets it.
        pack: on the decoder's device.
        backend: how attention is computed, see `packed_attention`.
        cache: holds the prefix where the pack says so; is given the pack's keys and values.

    Returns:
        ``(S, d)`` hidden states.
    """
    packed = packed_attention(pack, backend)
    tokens, positions, grid, n = pack.tokens, pack.positions, pack.grid_positions, len(pack.tokens)
    if packed.backend == "flex" and n % BLOCK:
        # tokens behind the end, which see themselves alone
        more = -n % BLOCK
        tokens, positions = F.pad(tokens, (0, more)), F.pad(positions, (0, more))
        packed.visible_until = torch.cat(
            [pack.visible_until, torch.arange(n + 1, n + more + 1, device=pack.visible_until.device)]
        )
        packed.positions = positions
        grid = None if grid is None else F.pad(grid, (0, 0, 0, more))
    output = decoder(
        input_ids=tokens[None].long(),
        position_ids=position_ids(positions[None] if grid is None else grid[None]),
        # as it has four dimensions, the library makes no mask of its own
        attention_mask=tokens.new_zeros((1, 1, 1, 1), dtype=torch.bool),
        past_key_values=cache,
        use_cache=cache is not None,
        packed=packed,
    )
    return output.last_hidden_state[0, :n]


def position_ids(positions: Tensor) -> Tensor:
    """Return positions as models take them: ``(batch, n)`` places as they are, ``(batch, n, 3)`` as three such."""
    return (positions if positions.dim() == 2 else positions.permute(2, 0, 1)).long()


@torch.no_grad()
def batch_hidden(
    decoder: nn.Module, batch: TreeBatch, backend: AttentionBackend = "auto"
) -> Iterator[tuple[Pack, Tensor]]:
    """Run all packs of a batch that was collated for scoring, one after the other.

    Yields:
        Each pack and its ``(S, d)`` hidden states.
    """
    cache = None
    for pack, after in zip_longest(batch.packs, batch.packs[1:]):
        if not pack.n_cached:
            cache = DynamicCache() if after is not None and after.n_cached else None
        yield pack, pack_hidden(decoder, pack, backend, cache)
        if cache is not None and after is not None and after.n_cached:
            cache.crop(after.n_cached - cache.get_seq_length())  # a negative number is how many are removed
