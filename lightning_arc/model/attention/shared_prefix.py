"""Attention of answers that are generated together, with one copy of each prompt's keys and values in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer


class PromptKeys:
    """The keys and values of a prompt in each layer, collected while it is run."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []

    def add(self, key: Tensor, value: Tensor) -> None:
        """Keep the ``(1, kv_heads, P, head_dim)`` keys and values of the next layer."""
        self.layers.append((key[0], value[0]))


class WrittenLayer(DynamicLayer):
    """A layer's cache of written tokens, in buffers that are filled in place; the library's own copies on every token.

    Args:
        room: tokens that may be written.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room, self._length = room, 0
        self._buffers: tuple[Tensor, ...] = ()

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Add one token to every row; return the keys and values of all written tokens."""
        both, n = (key_states, value_states), len(key_states)
        if not self._buffers:
            self._buffers = tuple(x.new_empty(n, x.shape[1], self._room, x.shape[3]) for x in both)
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        for buffer, states in zip(self._buffers, both, strict=True):
            buffer[:n, :, self._length : self._length + 1] = states
        self._length += 1
        return self._show(n)

    def select(self, rows: Tensor) -> None:
        """Replace row ``i`` by the former row ``rows[i]``."""
        if not self._buffers:
            return
        n = len(rows)
        if n > len(self._buffers[0]):
            self._buffers = tuple(self._grown(x, max(n, 2 * len(x))) for x in self._buffers)
        changed = (rows != torch.arange(n, device=rows.device)).nonzero()[:, 0]
        if len(changed):
            for buffer in self._buffers:
                buffer[changed, :, : self._length] = buffer[rows[changed], :, : self._length]
        self._show(n)

    def _grown(self, old: Tensor, n: int) -> Tensor:
        buffer = old.new_empty(n, *old.shape[1:])
        buffer[: len(old), :, : self._length] = old[:, :, : self._length]
        return buffer

    def _show(self, n: int) -> tuple[Tensor, Tensor]:
        keys, values = (buffer[:n, :, : self._length] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values


@dataclass(eq=False)
class PrefixedAttention:
    """Attention of each row's last token to the row's prompt and to the tokens written behind it.

    Rows of one prompt are neighbours, in the order of the prompts.

    Args:
        prompts: keys and values of each prompt.
        counts: number of rows of each prompt.
    """

    prompts: Sequence[PromptKeys]
    counts: Sequence[int]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
    ) -> Tensor:
        """Attend in a layer; all rows of a prompt read its keys in one product.

        Args:
            layer: number of the layer.
            query: ``(n, heads, 1, head_dim)``.
            key: ``(n, kv_heads, t, head_dim)`` of the written tokens.
            value: the same.
            scaling: what scores are multiplied by, ``None`` for ``head_dim ** -0.5``.
            window: how many tokens back a token sees, itself included; ``None`` for all.

        Returns:
            ``(n, heads, 1, head_dim)``.
        """
        n, heads, _, width = query.shape
        kv_heads, written = key.shape[1], key.shape[2]
        groups = heads // kv_heads
        rows = (query * (width**-0.5 if scaling is None else scaling)).view(n, kv_heads, groups, width)
        to_written, out, start = rows @ key.mT, value.new_empty(n, kv_heads, groups, value.shape[-1]), 0
        wide = torch.promote_types(query.dtype, torch.float32)
        for prompt, count in zip(self.prompts, self.counts, strict=True):
            (keys, values), own = prompt.layers[layer], slice(start, start + count)
            start, length = start + count, keys.shape[1]
            together = rows[own].transpose(0, 1).reshape(kv_heads, count * groups, width)
            to_prompt = (together @ keys.mT).view(kv_heads, count, groups, length).transpose(0, 1)
            scores = torch.cat([to_prompt, to_written[own]], -1)
            if window is not None and window < length + written:
                scores[..., : length + written - window] = -torch.inf
            given = torch.softmax(scores, -1, dtype=wide).to(value.dtype)
            of_prompt = given[..., :length].transpose(0, 1).reshape(kv_heads, count * groups, length) @ values
            of_prompt = of_prompt.view(kv_heads, count, groups, -1).transpose(0, 1)
            torch.add(of_prompt, given[..., length:] @ value[own], out=out[own])
        return out.view(n, heads, 1, -1)
