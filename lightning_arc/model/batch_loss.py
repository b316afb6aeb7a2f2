"""The loss of a training batch: per prompt kind the weighted mean over its targets, summed with the kinds' weights."""

from functools import partial

import torch
from torch import Tensor
from torch.nn import Parameter
from transformers import PreTrainedModel

from lightning_arc.data.batch import Pack, TreeBatch
from lightning_arc.model.accumulation import accumulate_losses
from lightning_arc.model.attention.tree import AttentionBackend
from lightning_arc.model.head import Head, chunked_cross_entropy
from lightning_arc.model.tree_forward import pack_hidden


def batch_loss(
    model: PreTrainedModel,
    batch: TreeBatch,
    trained: list[Parameter],
    kind_weights: Tensor,
    backend: AttentionBackend = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a batch's loss; ``(2, kinds)`` weighted sums of its targets' losses and hits; and weights by kind.

    Args:
        model: a causal language model prepared by `use_tree_attention`.
        batch: collated for training.
        trained: weights whose gradients are wanted.
        kind_weights: ``(kinds,)`` weight of each kind of prompt.
        backend: how attention is computed, see `packed_attention`.
    """
    wanted = kind_weights.float()
    totals = torch.zeros_like(wanted)
    for pack in batch.packs:
        totals = totals.index_add(0, pack.kinds, pack.weights)
    of_target = (wanted / totals).where(totals > 0, 0)
    losses = [partial(_pack_loss, model, pack, of_target, backend) for pack in batch.packs]
    return *accumulate_losses(losses, trained), totals


def _pack_loss(
    model: PreTrainedModel, pack: Pack, of_target: Tensor, backend: AttentionBackend
) -> tuple[Tensor, Tensor]:
    """Return the loss of a pack, and ``(2, kinds)`` weighted sums of its targets' losses and hits."""
    hidden = pack_hidden(model.get_decoder(), pack, backend)[pack.places]
    weights = pack.weights * of_target[pack.kinds]
    loss, losses, hits = chunked_cross_entropy(Head.of(model), hidden, pack.targets, weights)
    both = torch.stack([losses.float(), hits.float()]) * pack.weights
    return loss, both.new_zeros(2, len(of_target)).index_add_(1, pack.kinds, both)
