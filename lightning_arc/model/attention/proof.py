"""The proof, when a model is loaded, that its logits on packs are those of its own forward pass on separate sequences.

It goes by what a model computes and not by its name, so that an architecture whose layers do something that packs do
not know (attention sinks, recurrent states, other windows or positions) is refused before work begins.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_arc.data.batch import TreeBatch
from lightning_arc.errors import DataError, first_line
from lightning_arc.model.attention.tree import AttentionBackend
from lightning_arc.model.head import Head
from lightning_arc.model.tree_forward import batch_hidden, position_ids
from lightning_arc.model.vocabulary import end_weights
from lightning_arc.prompt.positions import has_grid_positions
from lightning_arc.prompt.tree import IGNORE, Branch, PromptKind, TokenTree

PREFIX, BRANCH, BRANCHES = 5, 3, 3
"""The tree of the proof: tokens of its prefix, tokens of each branch, and number of branches."""

WINDOW = 3
"""Length of sliding windows during the proof, so short that a few tokens reach beyond them."""

WINDOWS = ("sliding_window", "attention_chunk_size")
"""Names of the windows in models and their configurations."""

TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3}
"""Largest allowed difference of logits, as a share of their spread."""

LOW_PRECISION = 0.3
"""The same in 16 bits, in which rounding alone makes up to 0.1 in small pretrained models, and ignored windows 0.6."""

SAME_STATES = 0.03
"""The same where both logits come from the same hidden states."""


@contextmanager
def proved(
    model: PreTrainedModel, kept: NDArray[np.int32] | None = None, backend: AttentionBackend = "auto"
) -> Iterator[None]:
    """Refuse a model whose logits on packs, after the ``with`` body, differ from its own logits before.

    Args:
        model: a causal language model with the library's attention; the body prepares it for packs.
        kept: token ids whose rows the body keeps, ``None`` for all.
        backend: attention backend of packs.

    Raises:
        DataError: names the model and the reason.
    """
    name = ": ".join(filter(None, [model.name_or_path, type(model).__name__]))
    n_tokens = len(end_weights(model)[0] if kept is None else kept)
    tree = _tree(n_tokens, has_grid_positions(model.config.to_dict()))
    places = np.stack([tree.sequence(i) for i in range(BRANCHES)])
    ids = torch.from_numpy((places if kept is None else kept[places]).astype(np.int64)).to(model.device)
    with _tried(model, name, "its own forward pass fails"):
        hidden, own = _own(model, ids, tree)
        unlike = difference(Head.of(model).logits(hidden), own)
    tolerance = TOLERANCE.get(own.dtype, LOW_PRECISION)
    if unlike > min(tolerance, SAME_STATES):
        raise DataError(f"{name}: changes its logits after its head in a way that is not supported")
    yield
    own = own if kept is None else own[..., torch.from_numpy(kept.astype(np.int64)).to(own.device)]
    failure = f"several prompts cannot be run through it in one sequence{_hint(model)}"
    with _tried(model, name, failure):
        packed = _packed(model, tree, backend)
    # Prefix and branches are compared apart, because each takes another path through the attention.
    parts = [(packed[0, :PREFIX], own[0, :PREFIX])]
    parts += [(packed[i, PREFIX:], own[i, PREFIX:]) for i in range(BRANCHES)]
    unlike = max(difference(*part) for part in parts)
    if unlike > tolerance:
        raise DataError(f"{name}: {failure}: logits differ by {unlike:.1%} of their spread from separate sequences")


def check_positions(model: PreTrainedModel, longest: int, grid_positions: bool = False) -> None:
    """Refuse lengths at which a model changes the rotary positions of all prompts run together, short ones included.

    Args:
        model: a causal language model.
        longest: tokens of the longest prompt.
        grid_positions: whether prompts have positions in three parts.

    Raises:
        DataError: if its rotary frequencies change with the longest sequence within that length, or if it takes other
            positions.
    """
    if has_grid_positions(model.config.to_dict()) != grid_positions:
        given, wanted = ("grid", "sequence") if grid_positions else ("sequence", "grid")
        raise DataError(f"data.positions is {given}, expected {wanted}, which {type(model).__name__} takes")
    for module in model.modules():
        types, config = getattr(module, "rope_type", None), getattr(module, "config", None)
        settings = getattr(config, "rope_parameters", None) or {}
        by_layer = types if isinstance(types, dict) else {None: types}
        for layer, rope_type in by_layer.items():
            if rope_type != "longrope" and "dynamic" not in str(rope_type):
                continue
            own = settings if layer is None else settings[layer]
            limit: Any = own.get("original_max_position_embeddings") or module.original_max_seq_len
            if longest > limit:
                raise DataError(
                    f"data.max_seq_len is {longest}, expected at most {limit}: beyond that {type(model).__name__} "
                    f"changes the positions of all prompts that are run together ({rope_type} rotary positions)"
                )


def difference(found: Tensor, expected: Tensor) -> float:
    """Return how far logits are from the expected ones, as a share of their spread: the median over tokens.

    The median is used because in low precision a single token may go to other experts. The result is 0 if expected
    logits are not finite, as these prove nothing, and infinite if only the found ones are not.
    """
    found, expected = (x.detach().double().flatten(0, -2) for x in (found, expected))
    if not expected.isfinite().all():
        return 0.0
    spread = (expected - expected.mean(-1, keepdim=True)).norm(dim=-1)
    unlike = float(((found - expected).norm(dim=-1) / spread.clamp(min=1e-12)).median())
    return unlike if np.isfinite(unlike) else np.inf


def _tree(n_tokens: int, grid_positions: bool) -> TokenTree:
    rng = np.random.default_rng(0)

    def drawn(n: int) -> NDArray[np.int32]:
        return rng.integers(n_tokens, size=n).astype(np.int32)

    def placed(n: int) -> NDArray[np.int32] | None:
        return rng.integers(31, size=(n, 3)).astype(np.int32) if grid_positions else None

    branches = []
    for _ in range(BRANCHES):
        targets, kinds = np.full(BRANCH, IGNORE, np.int32), np.full(BRANCH, PromptKind.OUTPUT_FROM_EXAMPLES, np.int8)
        weights = np.ones(BRANCH, np.float32)
        branches.append(Branch(drawn(BRANCH), targets, kinds, weights, positions=placed(BRANCH)))
    targets = np.full(PREFIX, IGNORE, np.int32)
    return TokenTree(drawn(PREFIX), targets, tuple(branches), positions=placed(PREFIX))


def _hint(model: PreTrainedModel) -> str:
    """Return a possible reason why packs do not work, from what the library says of the model."""
    layers = {*(getattr(model.config.get_text_config(), "layer_types", None) or [])}
    if layers - {"full_attention", "sliding_attention"}:
        return f" (its layers: {', '.join(sorted(layers))})"
    takes_ours = getattr(type(model), "_supports_attention_backend", True)
    return "" if takes_ours else " (its layers take no other attention than their own)"


@contextmanager
def _tried(model: PreTrainedModel, name: str, failure: str) -> Iterator[None]:
    """Try a model without dropout and with short windows; any failure becomes a one-line error."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), _short_windows(model):
            yield
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    except Exception as error:
        raise DataError(f"{name}: {failure}: {first_line(error)}") from error
    finally:
        model.train(was_training)


@contextmanager
def _short_windows(model: nn.Module) -> Iterator[None]:
    owners = {id(x): x for module in model.modules() for x in (module, getattr(module, "config", None))}
    changed = []
    for owner in owners.values():
        for name in WINDOWS:
            size = getattr(owner, name, None)
            if isinstance(size, int) and size > WINDOW:
                changed.append((owner, name, size))
                setattr(owner, name, WINDOW)
    try:
        yield
    finally:
        for owner, name, size in changed:
            setattr(owner, name, size)


def _own(model: PreTrainedModel, ids: Tensor, tree: TokenTree) -> tuple[Tensor, Tensor]:
    """Return the inputs of a model's head, and its logits, for the branches of a tree run separately."""
    placed = {}
    if tree.positions is not None:
        whole = np.stack([np.concatenate([tree.positions, branch.positions]) for branch in tree.branches])
        placed["position_ids"] = position_ids(torch.from_numpy(whole).to(ids.device))
    inputs: list[Tensor] = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    try:
        logits = model(input_ids=ids, use_cache=False, **placed).logits
    finally:
        hook.remove()
    return inputs[-1], logits


def _packed(model: PreTrainedModel, tree: TokenTree, backend: AttentionBackend) -> Tensor:
    """Return ``(branches, tokens, vocabulary)`` logits; the last branch follows a cached prefix."""
    batch = TreeBatch.collate([tree], 0, 0, max_tokens=PREFIX + (BRANCHES - 1) * BRANCH).to(model.device)
    if backend in ("auto", "flex") and batch.buffer.is_cuda:
        backend = "mask"  # compiling takes longer than all the rest
    (_, first), (_, last) = batch_hidden(model.get_decoder(), batch, backend)
    prefix, branches = first[:PREFIX], [*first[PREFIX:].split(BRANCH), last]
    return Head.of(model).logits(torch.stack([torch.cat([prefix, branch]) for branch in branches]))
