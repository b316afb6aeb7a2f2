"""Scores of the branches of a batch: likelihoods of written grids, verdicts, and choices among options."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lightning_arc.data.batch import TreeBatch
from lightning_arc.model.attention.tree import AttentionBackend
from lightning_arc.model.head import Head, target_log_probs
from lightning_arc.model.tree_forward import batch_hidden
from lightning_arc.prompt.tree import PromptKind


@dataclass
class BranchScores:
    """Scores of ``n`` branches.

    Args:
        log_likelihood: ``(n,)`` sum of the written tokens' log-probabilities, nan where nothing is written.
        log_odds: ``(n,)`` log-odds of "yes" against "no", nan where no verdict is asked for.
        choices: ``(n, options)`` log-probabilities of the options' numbers, nan where no choice is asked for.
        written: ``(n,)`` number of written tokens.
        hits: ``(n,)`` number of written tokens that are the likeliest one, given all before.
    """

    log_likelihood: Tensor
    log_odds: Tensor
    choices: Tensor
    written: Tensor
    hits: Tensor

    @property
    def mismatches(self) -> Tensor:
        """``(n,)`` number of written tokens that are not the likeliest one, nan where nothing is written."""
        return (self.written - self.hits).double().where(self.written > 0, torch.nan)

    def select(self, rows: Tensor | slice) -> "BranchScores":
        """Return the scores of some branches."""
        return BranchScores(*(getattr(self, f.name)[rows] for f in fields(self)))


@torch.no_grad()
def score_batch(model: PreTrainedModel, batch: TreeBatch, backend: AttentionBackend = "auto") -> BranchScores:
    """Score all branches of a batch, in the order of its trees.

    Args:
        model: a causal language model prepared by `use_tree_attention`.
        batch: collated for scoring.
        backend: how attention is computed, see `packed_attention`.
    """
    decoder, head = model.get_decoder(), Head.of(model)
    n = sum(len(shape.branches) for shape in batch.shapes)
    zeros = torch.zeros(n, dtype=torch.float64, device=batch.buffer.device)
    log_likelihood, hits, written = zeros.clone(), zeros.long(), zeros.long()
    log_odds = torch.full_like(zeros, torch.nan)
    choices = torch.full((n, len(batch.choice_ids)), torch.nan, dtype=torch.float64, device=zeros.device)
    for pack, hidden in batch_hidden(decoder, batch, backend):
        branch_ids = pack.branch_ids.long()
        writes = pack.kinds != PromptKind.VERIFY_OUTPUT_FROM_EXAMPLES
        places, rows = pack.places[writes], branch_ids[writes]
        log_probs, hit = target_log_probs(head, hidden[places], pack.targets[writes])
        log_likelihood.index_add_(0, rows, log_probs.double())
        written.index_add_(0, rows, torch.ones_like(rows))
        hits.index_add_(0, rows, hit.long())
        logits = head.logits(hidden[pack.places[~writes]], [batch.yes_id, batch.no_id]).double()
        log_odds[branch_ids[~writes]] = logits[:, 0] - logits[:, 1]
        selects = pack.kinds == PromptKind.SELECT_OUTPUT_FROM_EXAMPLES
        logits = head.logits(hidden[pack.places[selects]]).double()
        choices[branch_ids[selects]] = logits.log_softmax(-1)[:, batch.choice_ids]
    return BranchScores(log_likelihood.where(written > 0, torch.nan), log_odds, choices, written, hits)
