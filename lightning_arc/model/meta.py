"""A model without its weights: shapes and types of all of them, as training would hold them."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from peft import get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from lightning_arc.errors import DataError, first_line
from lightning_arc.model.adapter_folder import adapter_config
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.attention.tree import use_tree_attention
from lightning_arc.model.fast_layers import use_fast_layers, use_fast_lora
from lightning_arc.model.load import Lora, Scratch, add_lora, base_type, new_model
from lightning_arc.model.vocabulary import trim
from lightning_arc.prompt.tokenizer import load_tokenizer, pretrained_source, resolve_model_path

PROBE_TOKENS = 64
"""Size of the vocabulary of the few layers that activations are counted in."""

TRUE_TYPES = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}
"""Precisions in which Lightning turns all weights into one type."""


def model_config(module: ArcModel) -> PretrainedConfig:
    """Return the configuration of a module's base, without its weights.

    Raises:
        DataError: if it cannot be read.
    """
    if module.model_path is None:
        with torch.device("meta"):
            return new_model(module.scratch or Scratch(), load_tokenizer(None)).config
    path = resolve_model_path(module.model_path)
    source, options = pretrained_source(path)
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False, **options)
    except Exception as error:  # damaged files make the library fail in many ways
        raise DataError(f"{path}: no configuration of a model could be read: {first_line(error)}") from error


def meta_model(module: ArcModel, precision: str, kept: NDArray[np.int32] | None = None) -> nn.Module:
    """Make the model of ``ArcModel.build`` on the device ``meta``, where tensors have shapes and no numbers.

    Args:
        module: settings of a model that has not been built.
        precision: as the trainer names it.
        kept: token ids whose rows are kept; ``None`` keeps all.

    Raises:
        DataError: if the model or the adapter does not exist.
    """
    config = model_config(module)
    with torch.device("meta"):
        base = _of_config(config, base_type(precision, module.model_path, module.uses_lora))
        if kept is not None:
            trim(base, kept)
        model = _adapted(base, module) if module.uses_lora else base
    return model.to(TRUE_TYPES[precision]) if precision in TRUE_TYPES else model


def few_layers(module: ArcModel, n_layers: int, precision: str) -> nn.Module:
    """Make the first layers of a model with random weights and a tiny vocabulary, prepared for training.

    Raises:
        DataError: as `meta_model`.
    """
    config = copy.deepcopy(model_config(module))
    text = config.get_text_config()
    text.num_hidden_layers, text.vocab_size = n_layers, PROBE_TOKENS
    text.pad_token_id = text.bos_token_id = text.eos_token_id = None
    if getattr(text, "layer_types", None):
        text.layer_types = _first_types(text.layer_types, n_layers)
    dtype = base_type(precision, module.model_path, module.uses_lora)
    with torch.random.fork_rng([]):
        base = _of_config(config, dtype)
        use_tree_attention(base)
        use_fast_layers(base)
        model = _adapted(base, module) if module.uses_lora else base
    use_fast_lora(model)
    return (model.to(TRUE_TYPES[precision]) if precision in TRUE_TYPES else model).train()


def _first_types(types: Sequence[str], n: int) -> list[str]:
    """Return the types of a few layers; full attention first, which most layers have and which keeps most."""
    return (sorted(types, key=lambda name: name != "full_attention") * n)[:n]


def _of_config(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    try:
        return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    except Exception as error:
        raise DataError(f"{config.name_or_path}: no causal language model: {first_line(error)}") from error


def _adapted(base: PreTrainedModel, module: ArcModel) -> nn.Module:
    """Add an adapter, whatever its initial weights."""
    if module.adapter_path is None:
        return add_lora(base, replace(module.lora or Lora(), init="default"), None)
    config = adapter_config(module.adapter_path)
    config.init_lora_weights, config.inference_mode = True, False
    try:
        return get_peft_model(base, config)
    except Exception as error:  # settings that do not fit the base make peft fail in many ways
        raise DataError(f"{module.adapter_path}: no adapter of this model: {first_line(error)}") from error
