"""Trimmed vocabularies: an embedding and a head with the rows of some tokens only.

Knows causal language models and token ids. Knows nothing of prompts or of which tokens are needed.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel


@torch.no_grad()
def trim(model: PreTrainedModel, kept: NDArray[np.int32]) -> None:
    """Keep the rows of some tokens in the embedding and the head; their numbers are then their places among these.

    Args:
        model: a causal language model with a linear head.
        kept: ``(K,)`` token ids.
    """
    places = torch.from_numpy(kept.astype(np.int64))
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head.weight is embedding.weight
    rows = embedding.weight[places].clone()
    small = nn.Embedding(len(kept), rows.shape[1], _weight=nn.Parameter(rows, embedding.weight.requires_grad))
    linear = nn.Linear(rows.shape[1], len(kept), bias=False, device="meta")
    linear.weight = small.weight if tied else nn.Parameter(head.weight[places].clone(), head.weight.requires_grad)
    model.set_input_embeddings(small)
    model.set_output_embeddings(linear)
    model.config.vocab_size = len(kept)


@torch.no_grad()
def untrim(trimmed: PreTrainedModel, whole: PreTrainedModel, kept: NDArray[np.int32]) -> None:
    """Copy all weights of a trimmed model into one with all rows; rows that were not kept stay as they are there.

    Args:
        trimmed: what `trim` made, perhaps trained since.
        whole: the model that it was made of.
        kept: ``(K,)`` token ids.
    """
    places, weights = torch.from_numpy(kept.astype(np.int64)), whole.state_dict()
    for name, weight in trimmed.state_dict().items():
        if weights[name].shape == weight.shape:
            weights[name].copy_(weight)
        else:
            weights[name][places] = weight.to(weights[name])
