"""Decoding: answers that a model writes behind a prompt, by sampling or by search of all that are likely enough.

Knows causal language models, token ids and grammars of what may be written. Knows nothing of grids or prompts.

The prompt is run once. What is written is a tree of prefixes: answers that begin alike are one row until they part, and
all rows go through the model together, against one cache that is written in place.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from lightning_arc.arc.grid import DataError
from lightning_arc.model.head import Head
from lightning_arc.model.tree_forward import position_ids
from lightning_arc.prompt.grammar import Grammar
from lightning_arc.prompt.positions import GridRows


@dataclass
class Decoding:
    """How answers are written.

    Args:
        n_samples: answers that are sampled in each view; 0 samples none.
        temperature: what logits are divided by before sampling.
        top_p: share of the probability that the likeliest tokens, which are sampled from, have together.
        min_probability: besides, every answer whose probability, end included, is greater is found; ``null`` for none.
        constrained: whether only tokens that lead to a grid are written. Probabilities of found answers stay those of
            the model; sampling is from its distribution over the tokens that remain.
        max_tokens: bound of the tokens, those of the prompt included, whose keys all samples of a round have together.
    """

    n_samples: int = 8
    temperature: float = 1.0
    top_p: float = 1.0
    min_probability: float | None = None
    constrained: bool = True
    max_tokens: int = 32_768

    def __post_init__(self) -> None:
        if self.n_samples < 0 or (self.n_samples == 0 and self.min_probability is None):
            raise DataError("model.decoding: n_samples must be more than 0, or min_probability be given")
        if not 0 < self.temperature < math.inf:
            raise DataError(f"model.decoding.temperature is {self.temperature}, expected more than 0")
        if not 0 < self.top_p <= 1:
            raise DataError(f"model.decoding.top_p is {self.top_p}, expected more than 0 and at most 1")
        if self.min_probability is not None and not 0 < self.min_probability < 1:
            raise DataError(f"model.decoding.min_probability is {self.min_probability}, expected more than 0, below 1")
        if self.max_tokens < 1:
            raise DataError(f"model.decoding.max_tokens is {self.max_tokens}, expected more than 0")


class Written(NamedTuple):
    """An answer.

    Args:
        tokens: ``(n,)`` its token ids, without the one that ends it.
        log_likelihood: the model's log-probability of it, end included, at temperature 1 and over all tokens.
        count: how often it was sampled; 0 where it was found by search.
    """

    tokens: np.ndarray
    log_likelihood: float
    count: int


@dataclass
class _Rows:
    """Prefixes of answers, all of one length.

    Args:
        tokens: ``(n, length)`` what has been written.
        log_likelihood: ``(n,)`` float64.
        counts: ``(n,)`` samples that begin so.
        shapes: ``(n, 900)`` what each may become, ``None`` without a grammar.
    """

    tokens: np.ndarray
    log_likelihood: np.ndarray
    counts: np.ndarray
    shapes: np.ndarray | None


class BufferedLayer(DynamicLayer):
    """A layer's keys and values in buffers that are written in place, where the library's own are copied every token.

    Args:
        keys: ``(1, heads, P, head_dim)`` of the prompt, that all rows begin with.
        values: the same.
        room: tokens that may follow.
    """

    def __init__(self, keys: Tensor, values: Tensor, room: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._room, self._length = room, keys.shape[-2]
        self._buffers = tuple(self._grown(x, 1) for x in (keys, values))
        self._show(1)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Add tokens; return all keys and values."""
        n, _, new, _ = key_states.shape
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:n, :, self._length : self._length + new] = states
        self._length += new
        self._show(n)
        return self.keys, self.values

    def select(self, rows: Tensor) -> None:
        """Let row ``i`` be what row ``rows[i]`` was; only those that change are copied."""
        n = len(rows)
        if n > len(self._buffers[0]):
            self._buffers = tuple(self._grown(x, max(n, 2 * len(x))) for x in self._buffers)
        changed = (rows != torch.arange(n, device=rows.device)).nonzero()[:, 0]
        if len(changed):
            for buffer in self._buffers:
                buffer[changed, :, : self._length] = buffer[rows[changed], :, : self._length]
        self._show(n)

    def _grown(self, old: Tensor, n: int) -> Tensor:
        """Return a buffer of ``n`` rows that begins with what is in ``old``."""
        buffer = old.new_empty(n, old.shape[1], max(old.shape[2], self._length + self._room), old.shape[3])
        buffer[: len(old), :, : self._length] = old[:, :, : self._length]
        return buffer

    def _show(self, n: int) -> None:
        self.keys, self.values = (buffer[:n, :, : self._length] for buffer in self._buffers)


@torch.no_grad()
def write(
    model: PreTrainedModel,
    prompt: Tensor,
    end_id: int,
    room: int,
    decoding: Decoding,
    grammar: Grammar | None,
    seed: int,
    positions: Tensor | None = None,
    grid_rows: GridRows | None = None,
) -> tuple[list[Written], int]:
    """Write answers behind a prompt.

    Args:
        model: a causal language model.
        prompt: ``(P,)`` token ids.
        end_id: token that ends an answer.
        room: most tokens of an answer, end included.
        decoding: how answers are written.
        grammar: what may be written where `Decoding.constrained` is set.
        seed: of sampling, which goes in several rounds where `Decoding.max_tokens` asks for it. A search has at most
            ``1 / min_probability`` rows.
        positions: ``(P, 3)`` grid positions of the prompt, for a model that has such.
        grid_rows: tells those of what is written.

    Returns:
        The answers, and how many tokens went through the model.

    Raises:
        FloatingPointError: if the model gives what is not a finite number.
    """
    if grammar is not None and not grammar.start(1, room).any():
        return [], 0
    decoder, head = model.get_decoder(), Head.of(model)
    cache = DynamicCache()
    placed = {} if positions is None else {"position_ids": position_ids(positions[None])}
    hidden = decoder(input_ids=prompt[None], past_key_values=cache, use_cache=True, **placed).last_hidden_state
    first = head.logits(hidden[0, -1:])
    generator = torch.Generator(device=prompt.device).manual_seed(seed)
    per_round = max(1, decoding.max_tokens // (len(prompt) + room))
    rounds = [min(per_round, decoding.n_samples - done) for done in range(0, decoding.n_samples, per_round)]
    rounds += [0] if decoding.min_probability is not None else []
    written, n_tokens = [], len(prompt)
    for n in rounds:
        shapes = grammar.start(1, room) if grammar is not None and decoding.constrained else None
        rows = _Rows(np.zeros((1, 0), np.int64), np.zeros(1), np.array([n]), shapes)
        layers = [BufferedLayer(layer.keys, layer.values, room) for layer in cache.layers]
        logits = first
        for place in range(room):
            log_probs = torch.log_softmax(logits, -1)
            if log_probs[:, 0].isnan().any():  # one logit that is infinite or not a number makes all of its row so
                raise FloatingPointError("a logit is not a finite number")
            parents, tokens, counts = _children(rows, log_probs, n > 0, place, decoding, grammar, generator)
            rows = _descend(rows, log_probs, parents, tokens, counts, place, grammar)
            ended = rows.tokens[:, -1] == end_id
            for i in np.flatnonzero(ended):
                written.append(Written(rows.tokens[i, :-1], float(rows.log_likelihood[i]), int(rows.counts[i])))
            kept = np.flatnonzero(~ended)
            if not len(kept) or place == room - 1:
                break
            rows = _Rows(
                rows.tokens[kept],
                rows.log_likelihood[kept],
                rows.counts[kept],
                None if rows.shapes is None else rows.shapes[kept],
            )
            places = torch.from_numpy(parents[kept]).to(prompt.device)
            for layer in layers:
                layer.select(places)
            ids = torch.from_numpy(rows.tokens[:, -1:]).to(prompt.device)
            if positions is not None:
                placed = {"position_ids": position_ids(_last_position(rows.tokens, positions, grid_rows))}
            past = Cache(layers=layers)
            hidden = decoder(input_ids=ids, past_key_values=past, use_cache=True, **placed).last_hidden_state
            logits = head.logits(hidden[:, -1])
            n_tokens += len(ids)
    return written, n_tokens


def _children(
    rows: _Rows,
    log_probs: Tensor,
    samples: bool,
    place: int,
    decoding: Decoding,
    grammar: Grammar | None,
    generator: torch.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which rows go on with which tokens: row, token and number of samples of each, ordered by row."""
    allowed = None
    if rows.shapes is not None:
        mask = grammar.allowed(place, rows.shapes, _last(rows), log_probs.shape[-1])
        allowed = torch.from_numpy(mask).to(log_probs.device)
    if not samples:
        # Prefixes of one length exclude each other, so that no more than 1 / min_probability are left at a time.
        total = torch.from_numpy(rows.log_likelihood).to(log_probs.device)[:, None] + log_probs.double()
        likely = total > math.log(decoding.min_probability)
        found = (likely if allowed is None else likely & allowed).nonzero().cpu().numpy()
        return found[:, 0], found[:, 1], np.zeros(len(found), np.int64)
    scaled = log_probs / decoding.temperature
    if allowed is not None:
        scaled = scaled.masked_fill(~allowed, -torch.inf)
    probabilities = _nucleus(torch.softmax(scaled, -1), decoding.top_p)
    parents = np.repeat(np.arange(len(rows.counts)), rows.counts)
    places = torch.from_numpy(parents).to(log_probs.device)
    drawn = torch.multinomial(probabilities[places], 1, generator=generator)[:, 0].cpu().numpy()
    (codes, counts) = np.unique(parents * log_probs.shape[-1] + drawn, return_counts=True)
    parents, tokens = np.divmod(codes, log_probs.shape[-1])
    return parents, tokens, counts


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Leave the likeliest tokens whose probability together reaches ``top_p`` (Holtzman et al., 2019)."""
    if top_p == 1:
        return probabilities
    ordered, places = probabilities.sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(probabilities).scatter(-1, places, ordered.where(before < top_p, 0))


def _descend(
    rows: _Rows,
    log_probs: Tensor,
    parents: np.ndarray,
    tokens: np.ndarray,
    counts: np.ndarray,
    place: int,
    grammar: Grammar | None,
) -> _Rows:
    """Return the rows one token longer."""
    chosen = log_probs[torch.from_numpy(parents), torch.from_numpy(tokens)].double().cpu().numpy()
    shapes = None
    if rows.shapes is not None:
        shapes = grammar.advance(place, rows.shapes[parents], _last(rows)[parents], tokens)
    written = np.concatenate([rows.tokens[parents], tokens[:, None]], 1)
    return _Rows(written, rows.log_likelihood[parents] + chosen, counts, shapes)


def _last_position(tokens: np.ndarray, positions: Tensor, grid_rows: GridRows) -> Tensor:
    """Return the ``(n, 1, 3)`` positions of the last of ``(n, length)`` tokens of a grid behind a prompt."""
    cells = torch.from_numpy(grid_rows(tokens)[:, -1:]).to(positions)
    return torch.cat([(positions[-1, :1] + 1).expand(len(cells), 1, 1), cells], -1)


def _last(rows: _Rows) -> np.ndarray:
    return rows.tokens[:, -1] if rows.tokens.shape[1] else np.full(len(rows.tokens), -1)
