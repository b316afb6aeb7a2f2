"""The tree forward: hidden states of packs, equal for every branch to those of its separate sequence."""

from collections.abc import Iterator
from itertools import zip_longest

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.cache_utils import Cache, DynamicCache

from lightning_arc.data.batch import Pack, TreeBatch
from lightning_arc.model.attention.tree import BLOCK, AttentionBackend, packed_attention
from lightning_arc.model.autocast import autocast_type

ROUNDED = 32
"""A pack's number of tokens is rounded up by at most 1/`ROUNDED` of it, for products in 16 bits on a CPU."""


def pack_hidden(
    decoder: nn.Module, pack: Pack, backend: AttentionBackend = "auto", cache: Cache | None = None
) -> Tensor:
    """Run a pack.

    Args:
        decoder: the model without its head (``model.get_decoder()``), prepared by `use_tree_attention`.
        pack: the pack, on the decoder's device.
        backend: how attention is computed, see `packed_attention`.
        cache: holds the pack's cached prefix, if it has one; the pack's keys and values are appended.

    Returns:
        ``(S, d)`` hidden states.
    """
    packed = packed_attention(pack, backend)
    tokens, positions, grid, n = pack.tokens, pack.positions, pack.grid_positions, len(pack.tokens)
    more = -n % (BLOCK if packed.backend == "flex" else _multiple(n, decoder))
    if more:
        packed.pad(more)
        tokens, positions = F.pad(tokens, (0, more)), packed.positions
        grid = None if grid is None else F.pad(grid, (0, 0, 0, more))
    output = decoder(
        input_ids=tokens[None].long(),
        position_ids=position_ids(positions[None] if grid is None else grid[None]),
        # with four dimensions, the library makes no mask of its own
        attention_mask=tokens.new_zeros((1, 1, 1, 1), dtype=torch.bool),
        past_key_values=cache,
        use_cache=cache is not None,
        packed=packed,
    )
    return output.last_hidden_state[0, :n]


def _multiple(n: int, decoder: nn.Module) -> int:
    """Return the number to a multiple of which the tokens are rounded up, by about 1% on average.

    oneDNN prepares its products in 16 bits anew for each number of rows, which for narrow layers takes several times as
    long as the product. With few different sizes, freed memory is also reused.
    """
    device = next(decoder.parameters()).device.type
    dtype = autocast_type(device) or next(decoder.parameters()).dtype
    return 1 << max(0, (n // ROUNDED).bit_length() - 1) if device == "cpu" and dtype.itemsize == 2 else 1


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
