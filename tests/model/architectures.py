"""Small models with random weights of many architectures."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

COMMON = {
    "vocab_size": 84,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW = {"head_dim": 8, "sliding_window": 6}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 6}
LINEAR = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
OF_TYPE = {
    "cohere": {"logit_scale": 0.25},
    "cohere2": WINDOW | {"logit_scale": 0.25},
    "deepseek_v3": EXPERTS | LATENT | {"num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 1, "topk_group": 1},
    "gemma2": WINDOW,
    "gemma3_text": WINDOW | {"final_logit_softcapping": 2.0},
    "glm4": {"head_dim": 8},
    "gpt_oss": WINDOW | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "granite": {"logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "mistral": WINDOW,
    "phi3": {"sliding_window": 6},
    "qwen3": {"head_dim": 8},
    "qwen3_moe": EXPERTS | {"head_dim": 8, "num_experts": 4},
    "qwen3_next": EXPERTS
    | LINEAR
    | {
        "head_dim": 8,
        "num_experts": 4,
        "shared_expert_intermediate_size": 16,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    },
}
"""What each kind of model needs beside `COMMON`."""


def tiny(model_type: str, dtype: torch.dtype = torch.float32, **settings: object) -> PreTrainedModel:
    """Make a model of a kind that transformers knows."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **COMMON | OF_TYPE.get(model_type, {}) | settings)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    for p in model.parameters():  # far from where training begins, where layers hardly differ from the identity
        p.data = p.data * 4 if p.dim() > 1 else p.data + 0.1 * torch.randn_like(p)
    return model
