"""What a model says about the branches of a tree: log-likelihoods of written grids and log-odds of verdicts.

Knows tree tensors and causal language models. Knows nothing of prompts, training or Lightning.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lightning_arc.batch import TreeTensors
from lightning_arc.model.tree_forward import branch_chunks, branch_hidden, prefix_cache, target_log_probs
from lightning_arc.prompt.tree import IGNORE, Kind


@dataclass
class BranchScores:
    """Scores of ``n`` branches.

    Args:
        log_likelihood: ``(n,)`` sum of the written tokens' log-probabilities (of a selection, its number's), nan where
            nothing is written.
        log_odds: ``(n,)`` log-odds of "yes" against "no", nan where nothing is asked.
        written: ``(n,)`` number of written tokens.
        hits: ``(n,)`` how many of them are the likeliest token, given all before.
    """

    log_likelihood: Tensor
    log_odds: Tensor
    written: Tensor
    hits: Tensor


@torch.no_grad()
def score_tree(model: PreTrainedModel, tree: TreeTensors, yes_id: int, no_id: int, max_tokens: int) -> BranchScores:
    """Score all branches of a tree, in chunks.

    Args:
        model: a causal language model.
        tree: prefix and branches.
        yes_id: token id of "yes".
        no_id: token id of "no".
        max_tokens: bound of the tokens held at once, see `branch_chunks`.
    """
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    _, cached = prefix_cache(decoder, tree.prefix)
    parts = []
    for chunk in branch_chunks(tree, max_tokens):
        hidden = branch_hidden(decoder, cached, chunk.tokens)
        parts.append(_score_hidden(head, hidden, chunk, yes_id, no_id))
    return BranchScores(*(torch.cat([getattr(p, name) for p in parts]) for name in BranchScores.__dataclass_fields__))


def _score_hidden(head: torch.nn.Module, hidden: Tensor, tree: TreeTensors, yes_id: int, no_id: int) -> BranchScores:
    scored = tree.targets != IGNORE
    judges = scored & (tree.kinds == Kind.VERIFY_OUTPUT_FROM_EXAMPLES)
    writes = scored & ~judges
    log_probs, hits = target_log_probs(head, hidden[writes], tree.targets[writes])
    rows = writes.nonzero()[:, 0]
    zeros = torch.zeros(len(tree.tokens), dtype=torch.float64, device=hidden.device)
    written, has_verdict = writes.sum(1), judges.any(1)
    log_likelihood = zeros.index_add(0, rows, log_probs.double())
    log_odds = torch.full_like(zeros, torch.nan)
    if has_verdict.any():
        logits = head(hidden[judges])[:, [yes_id, no_id]].double()
        log_odds[judges.nonzero()[:, 0]] = logits[:, 0] - logits[:, 1]
    return BranchScores(
        log_likelihood=log_likelihood.where(written > 0, torch.nan),
        log_odds=log_odds,
        written=written,
        hits=zeros.index_add(0, rows, hits.double()).long(),
    )
