"""Trimmed vocabularies: an embedding and a head with the rows of some tokens only."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel


def end_weights(model: PreTrainedModel) -> tuple[nn.Parameter, nn.Parameter]:
    """Return the ``(vocabulary, d)`` weights of a causal language model's embedding and head; they may be the same."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    return embedding.get_parameter("weight"), head.get_parameter("weight")


@torch.no_grad()
def trim(model: PreTrainedModel, kept: NDArray[np.int32]) -> None:
    """Keep only the rows of some tokens in the embedding and the head; a token's new id is its place among these.

    Args:
        model: a causal language model with a linear head.
        kept: ``(K,)`` token ids.
    """
    places = torch.from_numpy(kept.astype(np.int64))
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert isinstance(embedding, nn.Embedding) and isinstance(head, nn.Linear)
    tied = head.weight is embedding.weight
    # In place, as an embedding may do more than look rows up (Gemma's multiplies them).
    embedding.weight = _rows(embedding.weight, places)
    head.weight = embedding.weight if tied else _rows(head.weight, places)
    if head.bias is not None:
        head.bias = _rows(head.bias, places)
    embedding.num_embeddings = head.out_features = len(kept)
    embedding.padding_idx = None
    model.config.vocab_size = len(kept)


def _rows(weight: Tensor, places: Tensor) -> nn.Parameter:
    return nn.Parameter(weight[places].clone(), weight.requires_grad)


@torch.no_grad()
def untrim(trimmed: PreTrainedModel, whole: PreTrainedModel, kept: NDArray[np.int32]) -> None:
    """Copy all weights of a trimmed model into one with all rows; rows that were not kept stay as they are there.

    Args:
        trimmed: a model after `trim`, perhaps trained since.
        whole: the model before `trim`.
        kept: ``(K,)`` token ids.
    """
    places, weights = torch.from_numpy(kept.astype(np.int64)), whole.state_dict()
    for name, weight in trimmed.state_dict().items():
        if weights[name].shape == weight.shape:
            weights[name].copy_(weight)
        else:
            weights[name][places] = weight.to(weights[name])
