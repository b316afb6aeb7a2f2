"""Loading a model: from a folder, a GGUF file or the hub, or from scratch in a given size; and LoRA on it."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Literal

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen3_5TextConfig,
)

from lightning_arc.errors import DataError, first_line
from lightning_arc.model.adapter_folder import check_adapter, check_complete
from lightning_arc.model.optimizers import require_bitsandbytes
from lightning_arc.prompt.positions import Positions
from lightning_arc.prompt.tokenizer import pretrained_source, resolve_model_path


@dataclass
class Lora:
    """A LoRA adapter (Hu et al., 2021), as peft makes it.

    Args:
        r: rank.
        alpha: scale; the update is multiplied by ``alpha / r``, or ``alpha / sqrt(r)`` with rsLoRA.
        dropout: dropout on the adapter's input; a continued training draws other values than an uninterrupted one.
        target_modules: names of the linear layers that get an adapter, or ``all-linear``.
        use_rslora: rank-stabilised scale (Kalajdzievski, 2023).
        use_dora: weight-decomposed adaptation (Liu et al., 2024).
        init: initialisation of the adapter's weights; ``default`` leaves the model unchanged at the start.
    """

    r: int = 32
    alpha: int = 64
    dropout: float = 0.0
    target_modules: list[str] | str = "all-linear"
    use_rslora: bool = True
    use_dora: bool = False
    init: Literal["default", "gaussian", "pissa", "olora", "orthogonal"] = "default"


@dataclass
class Scratch:
    """The size of a model that is made from scratch, with the compact grid vocabulary.

    Args:
        hidden_size: width of the residual stream.
        layers: number of layers.
        heads: attention heads.
        kv_heads: key-value heads.
        intermediate_size: width of the feed-forward layers.
        max_positions: longest sequence that the configuration declares.
        rope_theta: base of the rotary position embedding.
        positions: ``sequence`` makes a Qwen2, whose tokens are counted; ``grid`` makes a Qwen3.5 with full attention in
            all layers, whose tokens know their grid, row and column (M-RoPE: Wang et al., 2024).
    """

    hidden_size: int = 192
    layers: int = 6
    heads: int = 6
    kv_heads: int = 2
    intermediate_size: int = 512
    max_positions: int = 16384
    rope_theta: float = 10000.0
    positions: Positions = "sequence"


def base_type(precision: str, model_path: str | None, adapts: bool) -> torch.dtype:
    """Return the type that a base's weights have in memory.

    Frozen weights need no more than bfloat16 where the computation is in it; trained ones stay in float32.

    Args:
        precision: as the trainer names it.
        model_path: of the base, ``None`` for one from scratch.
        adapts: whether only an adapter is trained.
    """
    half = model_path is not None and precision.startswith("bf16") and (adapts or "true" in precision)
    return torch.bfloat16 if half else torch.float32


def load_base(model_path: str, dtype: torch.dtype, quantize: Literal["4bit"] | None = None) -> PreTrainedModel:
    """Load a causal language model from safetensors, or from a GGUF file whose weights are dequantised.

    Args:
        model_path: a folder, a GGUF file or a hub name; ``bundled`` for the small model of this package.
        dtype: type of its weights in memory.
        quantize: ``4bit`` holds the weights of linear layers in 4-bit NormalFloats (Dettmers et al., 2023).

    Raises:
        DataError: if it cannot be loaded.
    """
    path = resolve_model_path(model_path)
    source, options = pretrained_source(path)
    if options and quantize is not None:
        raise DataError(f"{path}: a GGUF file's weights are dequantised, and not held in 4 bits again (model.quantize)")
    if options and hasattr(transformers, "GgufConfig"):
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    if quantize is not None:
        require_bitsandbytes(f"model.quantize {quantize}")
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, use_safetensors=True, trust_remote_code=False, **options
        )
    except Exception as error:  # damaged files make the library fail in many ways
        raise DataError(f"{path}: no model could be loaded: {first_line(error)}") from error
    model.name_or_path = model.config.name_or_path = path  # an adapter names it as its base
    return model


def new_model(size: Scratch, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Make a model with random weights for a tokenizer's vocabulary.

    Raises:
        DataError: if no model can have this size.
    """
    for name, value in asdict(size).items():
        if name != "positions" and value <= 0:
            raise DataError(f"model.scratch.{name} is {value}, expected more than 0")
    if size.hidden_size % (2 * size.heads) or size.heads % size.kv_heads:
        raise DataError(
            f"model.scratch: hidden_size {size.hidden_size} must be a multiple of twice the {size.heads} heads, and "
            f"heads one of the {size.kv_heads} kv_heads"
        )
    rope = {"rope_type": "default", "rope_theta": size.rope_theta}
    common = {
        "vocab_size": len(tokenizer),
        "hidden_size": size.hidden_size,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "intermediate_size": size.intermediate_size,
        "max_position_embeddings": size.max_positions,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config: PretrainedConfig = Qwen2Config(**common, rope_parameters=rope)
    if size.positions == "grid":
        width = size.hidden_size // size.heads
        if width < 6:
            raise DataError(f"model.scratch.positions: grid needs heads of width 6 or more, these have {width}")
        # How many of a head's rotary pairs belong to grid, row and column; the three are interleaved.
        sections = [(width // 2 + 2 - part) // 3 for part in range(3)]
        rope |= {"mrope_section": sections, "mrope_interleaved": True, "partial_rotary_factor": 1.0}
        layers = ["full_attention"] * size.layers
        config = Qwen3_5TextConfig(**common, head_dim=width, layer_types=layers, rope_parameters=rope)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def add_lora(base: PreTrainedModel, lora: Lora | None, adapter_path: str | None) -> PeftModel:
    """Put a new adapter, or a saved one that goes on being trained, on a base model.

    Raises:
        DataError: if ``adapter_path`` has no adapter for this base, or no adapter can have these settings.
    """
    if adapter_path is not None:
        check_adapter(adapter_path)
        try:
            model = PeftModel.from_pretrained(base, adapter_path, is_trainable=True)
        except Exception as error:  # settings that do not fit the base make peft fail in many ways
            raise DataError(f"{adapter_path}: no adapter could be loaded: {first_line(error)}") from error
        check_complete(model, "default", adapter_path)
        return model
    try:
        return get_peft_model(base, lora_config(lora or Lora()))
    except (ValueError, re.error) as error:  # a text that names layers is a regular expression
        raise DataError(f"model.lora: {first_line(error)}") from error


def without_wrapper(model: nn.Module) -> PreTrainedModel:
    """Return the causal language model that peft may have wrapped, its adapters' layers in place."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(base, PreTrainedModel)
    return base


def moved(model: PreTrainedModel, to: torch.device | torch.dtype) -> PreTrainedModel:
    """Move a model to a device, or its weights to a type."""
    return model.to(to)  # type: ignore[arg-type]  # transformers' decorator hides `self`


def lora_config(lora: Lora) -> LoraConfig:
    """Return an adapter's settings as peft takes them."""
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        init_lora_weights=True if lora.init == "default" else lora.init,
    )


def changes_base(config: LoraConfig) -> bool:
    """Whether an adapter's initial update is subtracted from its base's weights, as in PiSSA and OLoRA."""
    init = str(getattr(config, "init_lora_weights", True)).lower()
    return init.startswith(("pissa", "olora", "corda", "loftq", "lora_ga"))


def fingerprint(model: nn.Module) -> str:
    """Return a fingerprint of a model's weights: equal for equal weights, whatever their precision.

    It covers every parameter's name and shape and a sample of up to 64 of its values, rounded to bfloat16; reading
    all values of a large model would take longer than loading it. Weights that differ only elsewhere are not told
    apart.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        flat = parameter.detach().flatten()
        sample = flat[:: max(1, flat.numel() // 64)][:64].to("cpu", torch.bfloat16).float()
        digest.update(json.dumps([name, list(parameter.shape), sample.tolist()]).encode())
    return digest.hexdigest()[:16]
