"""The tree forward: a prefix once, then its branches against the prefix's key-value cache.

Knows Hugging Face causal language models and tree tensors. Knows nothing of prompts, losses' weights or Lightning.
Every branch gets exactly the hidden states (and, in training, gives exactly the gradients) that it would have as a
separate sequence behind the prefix.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from lightning_arc.batch import TreeTensors
from lightning_arc.prompt.tree import IGNORE

POSITIONS_PER_CHUNK = 1024
"""Positions whose logits are held at once; at Qwen's 151,936 tokens a chunk is 0.6 GB in float32."""


def prefix_cache(decoder: nn.Module, prefix: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Run the prefix.

    Args:
        decoder: the model without its head (``model.get_decoder()``).
        prefix: ``(P,)`` token ids, P at least 1.

    Returns:
        ``(P, d)`` hidden states, and per layer the keys and values, each ``(1, heads, P, head_dim)``.
    """
    cache = DynamicCache()
    hidden = decoder(input_ids=prefix[None], past_key_values=cache, use_cache=True).last_hidden_state[0]
    return hidden, [(layer.keys, layer.values) for layer in cache.layers]


def branch_hidden(decoder: nn.Module, cached: list[tuple[Tensor, Tensor]], tokens: Tensor) -> Tensor:
    """Run ``(n, B)`` branch tokens against a prefix's keys and values.

    Branches are padded on the right, so that causality alone keeps padding out of every real position.

    Returns:
        ``(n, B, d)`` hidden states; meaningless where padded.
    """
    n = len(tokens)
    cache = DynamicCache([(k.expand(n, -1, -1, -1), v.expand(n, -1, -1, -1)) for k, v in cached])
    mask = branch_mask(decoder, cached, tokens)
    return decoder(input_ids=tokens, attention_mask=mask, past_key_values=cache, use_cache=True).last_hidden_state


def branch_mask(decoder: nn.Module, cached: list[tuple[Tensor, Tensor]], tokens: Tensor) -> Tensor | None:
    """Return the attention mask that all branches share, made once.

    The library's own is boolean and as many times as there are branches; every layer makes numbers of it again, and
    keeps them for the backward pass.

    Returns:
        ``(1, 1, B, P + B)``, 0 where a branch token attends and ``-inf`` elsewhere. ``None``, so that the library makes
        its own, where a layer of the model attends in another way than causally to everything.
    """
    config = decoder.config
    plain = set(getattr(config, "layer_types", None) or ()) == {"full_attention"}
    if not plain or config._attn_implementation not in ("sdpa", "eager"):
        return None
    keys = cached[0][0]
    n_prefix, n_branch = keys.shape[-2], tokens.shape[1]
    mask = torch.full((n_branch, n_prefix + n_branch), -torch.inf, dtype=keys.dtype, device=keys.device)
    return mask.triu(n_prefix + 1)[None, None]


def tree_hidden(decoder: nn.Module, tree: TreeTensors) -> tuple[Tensor, Tensor]:
    """Return the hidden states of the prefix ``(P, d)`` and of all branches ``(n, B, d)``."""
    hidden, cached = prefix_cache(decoder, tree.prefix)
    return hidden, branch_hidden(decoder, cached, tree.tokens)


def branch_chunks(tree: TreeTensors, max_tokens: int) -> Iterator[TreeTensors]:
    """Cut a tree's branches into chunks whose keys, prefix copies included, stay within a number of tokens.

    Args:
        tree: the whole tree.
        max_tokens: bound of ``chunk branches * (prefix + longest branch)``; at least one branch is always taken.
    """
    per_branch = len(tree.prefix) + tree.tokens.shape[1]
    size = max(1, max_tokens // per_branch)
    for start in range(0, len(tree.tokens), size):
        yield tree.branches(start, min(start + size, len(tree.tokens)))


def target_log_probs(head: nn.Module, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of given next tokens, with logits made only for these positions and a chunk at a time.

    Args:
        head: the output embedding (a linear layer).
        hidden: ``(N, d)`` hidden states at the positions before the targets.
        targets: ``(N,)`` token ids.

    Returns:
        ``(N,)`` ``float32`` (or wider) log-probabilities, and ``(N,)`` whether the target is the likeliest token.
    """
    targets = targets.long()
    if len(targets) == 0:
        return hidden.sum(-1).float(), torch.zeros(0, dtype=torch.bool, device=hidden.device)
    log_probs, hits = [], []
    for h, t in zip(hidden.split(POSITIONS_PER_CHUNK), targets.split(POSITIONS_PER_CHUNK), strict=True):
        if torch.is_grad_enabled() and len(targets) > POSITIONS_PER_CHUNK:
            log_prob, hit = checkpoint(_chunk_log_probs, head, h, t, use_reentrant=False)
        else:
            log_prob, hit = _chunk_log_probs(head, h, t)
        log_probs.append(log_prob)
        hits.append(hit)
    return torch.cat(log_probs), torch.cat(hits)


def _chunk_log_probs(head: nn.Module, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = head(hidden)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return -F.cross_entropy(logits, targets, reduction="none"), logits.argmax(-1) == targets


def at_targets(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the hidden states ``(N, d)`` and the targets ``(N,)`` of the positions that have one."""
    mask = targets != IGNORE
    return hidden[mask], targets[mask]


def check_linear_head(model: PreTrainedModel) -> None:
    """Refuse a model whose logits are not its output embedding applied to its decoder's hidden states.

    Raises:
        ValueError: for models that scale or cap their logits.
    """
    ids = torch.arange(3, device=model.device)[None]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        ours = model.get_output_embeddings()(model.get_decoder()(input_ids=ids).last_hidden_state)
        theirs = model(input_ids=ids).logits
    model.train(was_training)
    if not torch.allclose(ours.float(), theirs.float(), atol=1e-2, rtol=1e-2):
        raise ValueError(f"{type(model).__name__} changes its logits after the head, which is not supported")
