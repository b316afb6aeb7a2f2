"""Decoding: writes answers behind a prompt, by sampling or by a search for all answers above a probability.

A prompt is run once. The answers form a tree of prefixes: answers that begin alike are one row until they differ, and
all rows of all prompts go through the model together.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from lightning_arc.errors import DataError
from lightning_arc.model.attention.shared_prefix import PrefixedAttention, PromptKeys, WrittenLayer
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
        top_p: nucleus sampling: samples come from the likeliest tokens whose probability together reaches this.
        min_probability: a search also finds every answer, end included, that is likelier than this; ``null`` for no
            search.
        constrained: whether only tokens that lead to a grid are written. Probabilities of found answers stay those of
            the model; sampling is from its distribution over the tokens that remain.
        max_tokens: bound of the KV cache: tokens of all prompts and answers of a round together.
    """

    n_samples: int = 8
    temperature: float = 1.0
    top_p: float = 1.0
    min_probability: float | None = None
    constrained: bool = True
    max_tokens: int = 32_768

    @property
    def most_found(self) -> int:
        """Most rows of a search, 0 without one."""
        return 0 if self.min_probability is None else math.ceil(1 / self.min_probability)

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


@dataclass(frozen=True, eq=False)
class GeneratedAnswer:
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
        counts: ``(n,)`` number of samples that begin with each prefix.
        shapes: ``(n, 900)`` whether each may become a grid of a shape, ``None`` without a grammar.
    """

    tokens: np.ndarray
    log_likelihood: np.ndarray
    counts: np.ndarray
    shapes: np.ndarray | None


class Opening(NamedTuple):
    """A prompt that answers are written behind.

    Args:
        prompt: ``(P,)`` token ids.
        end_id: token that ends an answer.
        max_new_tokens: most tokens of an answer, end included.
        seed: of sampling.
        positions: ``(P, 3)`` grid positions of the prompt, for a model that has such.
    """

    prompt: Tensor
    end_id: int
    max_new_tokens: int
    seed: int
    positions: Tensor | None = None


class NotFiniteError(FloatingPointError):
    """A logit is not a finite number.

    Args:
        number: number of the opening whose answers have it.
    """

    def __init__(self, number: int) -> None:
        super().__init__("a logit is not a finite number")
        self.number = number


@dataclass(eq=False)
class _Job:
    """Unfinished answers to one opening, sampled or searched.

    Args:
        number: number of the opening.
        n: number of samples; 0 searches.
        generator: draws samples.
        cost: most tokens in the KV cache.
        rows: the prefixes written so far.
        logits: ``(rows, vocabulary)`` logits of the next token.
        parents: for each row, its row before the last token.
    """

    number: int
    n: int
    generator: torch.Generator
    cost: int
    rows: _Rows
    logits: Tensor
    parents: np.ndarray


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    openings: Sequence[Opening],
    decoding: Decoding,
    grammar: Grammar | None,
    grid_rows: GridRows | None = None,
) -> list[tuple[list[GeneratedAnswer], int]]:
    """Write answers behind prompts, a token at a time, all prompts together in as few rounds as memory allows.

    Args:
        model: a causal language model prepared by `use_tree_attention`.
        openings: the prompts.
        decoding: how answers are written. A search has at most ``1 / min_probability`` rows.
        grammar: restricts the tokens where `Decoding.constrained` is set.
        grid_rows: gives the grid positions of written tokens, for a model with grid positions.

    Returns:
        For each opening its answers, and the number of tokens that went through the model.

    Raises:
        NotFiniteError: if a logit of the model is not a finite number.
    """
    decoder, head = model.get_decoder(), Head.of(model)
    written: list[list[GeneratedAnswer]] = [[] for _ in openings]
    n_tokens, prompts = [0] * len(openings), dict[int, PromptKeys]()
    jobs: list[_Job] = []
    for number, opening in enumerate(openings):
        if grammar is not None and not grammar.start(1, opening.max_new_tokens).any():
            continue
        prompts[number], ids = PromptKeys(), opening.prompt[None]
        placed = {} if opening.positions is None else {"position_ids": position_ids(opening.positions[None])}
        hidden = decoder(input_ids=ids, use_cache=False, packed=prompts[number], **placed).last_hidden_state
        n_tokens[number] = len(opening.prompt)
        jobs += _jobs(number, opening, head.logits(hidden[0, -1:]), decoding, grammar)
    for group in _rounds(jobs, decoding.max_tokens):
        room = max(openings[job.number].max_new_tokens for job in group)
        layers = [WrittenLayer(room) for _ in prompts[group[0].number].layers]
        cache = Cache(layers=[*layers])
        for place in range(room):
            first, parents, active = 0, [], []
            for job in group:
                n = len(job.rows.counts)
                if _add_token(job, openings[job.number], place, decoding, grammar, written):
                    active.append(job)
                    parents.append(first + job.parents)
                first += n
            group = active
            if not group:
                break
            rows = torch.from_numpy(np.concatenate(parents)).to(hidden.device)
            for layer in layers:
                layer.select(rows)
            counts = [len(job.rows.counts) for job in group]
            attention = PrefixedAttention([prompts[job.number] for job in group], counts)
            last = _last_hidden(decoder, group, openings, grid_rows, hidden.device, cache, attention)
            for job, logits in zip(group, head.logits(last).split(counts), strict=True):
                job.logits = logits
                n_tokens[job.number] += len(logits)
    return list(zip(written, n_tokens, strict=True))


def _jobs(number: int, opening: Opening, logits: Tensor, decoding: Decoding, grammar: Grammar | None) -> Iterator[_Job]:
    """Yield the jobs of an opening, each within `Decoding.max_tokens` if possible."""
    length, room = len(opening.prompt), opening.max_new_tokens
    most = max(1, (decoding.max_tokens - length) // room)
    parts = [(min(most, decoding.n_samples - done), done) for done in range(0, decoding.n_samples, most)]
    parts += [(0, 0)] if decoding.min_probability is not None else []
    for n, done in parts:
        shapes = grammar.start(1, room) if grammar is not None and decoding.constrained else None
        rows = _Rows(np.zeros((1, 0), np.int64), np.zeros(1), np.array([n]), shapes)
        seed = int(np.random.SeedSequence([opening.seed, done]).generate_state(1)[0])
        generator = torch.Generator(device=logits.device).manual_seed(seed)
        cost = length + room * (n or decoding.most_found)
        yield _Job(number, n, generator, cost, rows, logits, np.zeros(1, np.int64))


def _rounds(jobs: Sequence[_Job], max_tokens: int) -> Iterator[list[_Job]]:
    """Group jobs into rounds of at most ``max_tokens`` tokens, or of one job."""
    group: list[_Job] = []
    for job in jobs:
        if group and sum(other.cost for other in group) + job.cost > max_tokens:
            yield group
            group = []
        group.append(job)
    if group:
        yield group


def _add_token(
    job: _Job,
    opening: Opening,
    place: int,
    decoding: Decoding,
    grammar: Grammar | None,
    written: list[list[GeneratedAnswer]],
) -> bool:
    """Append the next token to the rows of a job, and store finished answers; return whether any row continues."""
    log_probs = torch.log_softmax(job.logits, -1)
    if log_probs[:, 0].isnan().any():  # one logit that is nan or infinity makes its whole row nan
        raise NotFiniteError(job.number)
    parents, tokens, counts = _children(job.rows, log_probs, job.n > 0, place, decoding, grammar, job.generator)
    rows = _descend(job.rows, log_probs, parents, tokens, counts, place, grammar)
    ended = rows.tokens[:, -1] == opening.end_id
    for i in np.flatnonzero(ended):
        answer = GeneratedAnswer(rows.tokens[i, :-1], float(rows.log_likelihood[i]), int(rows.counts[i]))
        written[job.number].append(answer)
    kept = np.flatnonzero(~ended)
    shapes = None if rows.shapes is None else rows.shapes[kept]
    job.rows = _Rows(rows.tokens[kept], rows.log_likelihood[kept], rows.counts[kept], shapes)
    job.parents = parents[kept]
    return len(kept) > 0 and place < opening.max_new_tokens - 1


def _last_hidden(
    decoder: nn.Module,
    jobs: Sequence[_Job],
    openings: Sequence[Opening],
    grid_rows: GridRows | None,
    device: torch.device,
    cache: Cache,
    attention: PrefixedAttention,
) -> Tensor:
    """Run the last token of all rows; return ``(rows, d)`` hidden states."""
    ids, positions = [], []
    for job in jobs:
        opening, tokens = openings[job.number], job.rows.tokens
        ids.append(torch.from_numpy(tokens[:, -1:]))
        if opening.positions is None:
            positions.append(torch.full(ids[-1].shape, len(opening.prompt) + tokens.shape[1] - 1))
        else:
            assert grid_rows is not None  # as the prompt has grid positions
            positions.append(_last_position(tokens, opening.positions.cpu(), grid_rows))
    output = decoder(
        input_ids=torch.cat(ids).to(device),
        position_ids=position_ids(torch.cat(positions)).to(device),
        # with four dimensions, the library makes no mask of its own
        attention_mask=torch.zeros((1, 1, 1, 1), dtype=torch.bool, device=device),
        past_key_values=cache,
        use_cache=True,
        packed=attention,
    )
    return output.last_hidden_state[:, -1]


def _children(
    rows: _Rows,
    log_probs: Tensor,
    samples: bool,
    place: int,
    decoding: Decoding,
    grammar: Grammar | None,
    generator: torch.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the continuations of rows: the row, token and number of samples of each, ordered by row."""
    allowed = None
    if grammar is not None and rows.shapes is not None:
        mask = grammar.allowed(place, rows.shapes, _last(rows), log_probs.shape[-1])
        allowed = torch.from_numpy(mask).to(log_probs.device)
    if not samples:
        assert decoding.min_probability is not None  # as this is a search
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
    """Keep the likeliest tokens whose probability together reaches ``top_p`` (Holtzman et al., 2019)."""
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
    if grammar is not None and rows.shapes is not None:
        shapes = grammar.advance(place, rows.shapes[parents], _last(rows)[parents], tokens)
    written = np.concatenate([rows.tokens[parents], tokens[:, None]], 1)
    return _Rows(written, rows.log_likelihood[parents] + chosen, counts, shapes)


def _last_position(tokens: np.ndarray, positions: Tensor, grid_rows: GridRows) -> Tensor:
    """Return the ``(n, 1, 3)`` positions of the last of ``(n, length)`` tokens of a grid behind a prompt."""
    cells = torch.from_numpy(grid_rows(tokens)[:, -1:]).to(positions)
    return torch.cat([(positions[-1, :1] + 1).expand(len(cells), 1, 1), cells], -1)


def _last(rows: _Rows) -> np.ndarray:
    return rows.tokens[:, -1] if rows.tokens.shape[1] else np.full(len(rows.tokens), -1)
