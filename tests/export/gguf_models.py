"""Tiny models for GGUF files, one for each way in which an architecture is stored."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

__all__ = ["MODELS", "VOCABULARY", "architecture_of", "configuration", "tiny_model"]

VOCABULARY = 96
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
# Of a test, for each its file's architecture and what is particular about its configuration.
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "head_dim": 16},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 32},
    "phi3": {"model_type": "phi3"},
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 16,
        "tie_word_embeddings": True,
    },
    "gemma": {"model_type": "gemma", "head_dim": 32, "tie_word_embeddings": True},
    "gemma2": {
        "model_type": "gemma2",
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 4,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0,
        "tie_word_embeddings": True,
    },
    "gemma4": {
        "model_type": "gemma4_text",
        "num_hidden_layers": 4,
        "head_dim": 16,
        "global_head_dim": 32,
        "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "use_double_wide_mlp": True,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCABULARY,
        "final_logit_softcapping": 3.0,
        "tie_word_embeddings": True,
    },
    "gemma4 experts": {
        "model_type": "gemma4_text",
        "head_dim": 16,
        "global_head_dim": 32,
        "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention"],
        "hidden_size_per_layer_input": 0,
        "vocab_size_per_layer_input": VOCABULARY,
        "attention_k_eq_v": True,
        "num_global_key_value_heads": 1,
        "enable_moe_block": True,
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 32,
        "tie_word_embeddings": True,
    },
    "gpt-oss": {
        "model_type": "gpt_oss",
        "head_dim": 32,
        "sliding_window": 4,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 32 * 4096,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 150000.0,
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 4096,
        },
    },
    "ministral3": {
        "model_type": "ministral3",
        "head_dim": 32,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1000000.0,
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.1,
            "original_max_position_embeddings": 4,
        },
    },
    "mixtral": {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2moe": {
        "model_type": "qwen2_moe",
        **EXPERTS,
        "shared_expert_intermediate_size": 48,
    },
    "qwen3moe": {"model_type": "qwen3_moe", "head_dim": 32, **EXPERTS, "norm_topk_prob": True},
    "granite": {
        "model_type": "granite",
        "attention_multiplier": 0.0625,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.25,
        "logits_scaling": 8.0,
        "tie_word_embeddings": True,
    },
    "olmo2": {"model_type": "olmo2"},
    "olmo3": {
        "model_type": "olmo3",
        "num_hidden_layers": 4,
        "sliding_window": 4,
        "max_position_embeddings": 256,
        "rope_parameters": {
            "full_attention": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "attention_factor": 1.25,
                "original_max_position_embeddings": 32,
            },
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    "smollm3": {"model_type": "smollm3", "num_hidden_layers": 4, "tie_word_embeddings": True},
    "glm4": {"model_type": "glm4", "head_dim": 32, "attention_bias": True},
    "lfm2": {
        "model_type": "lfm2",
        "layer_types": ["conv", "full_attention"],
        "block_auto_adjust_ff_dim": False,
        "tie_word_embeddings": True,
    },
    "starcoder2": {"model_type": "starcoder2", "tie_word_embeddings": True},
    "stablelm": {"model_type": "stablelm", "use_qkv_bias": True},
    "stablelm parallel": {"model_type": "stablelm", "use_parallel_residual": True},
    "cohere2": {
        "model_type": "cohere2",
        "num_hidden_layers": 4,
        "sliding_window": 4,
        "logit_scale": 0.25,
        "tie_word_embeddings": True,
    },
    "exaone4": {"model_type": "exaone4", "num_hidden_layers": 4, "sliding_window": 4},
    "exaone4 small": {
        "model_type": "exaone4",
        "sliding_window": None,
        "layer_types": ["full_attention"] * 2,
    },
    "gpt2": {"model_type": "gpt2", "intermediate_size": 256, "tie_word_embeddings": True},
}
# Under which name llama.cpp has it, where that is another.
FILED = {"ministral3": "mistral3", "mixtral": "llama", "olmo3": "olmo2"}


def configuration(name: str, **changes: Any) -> Any:
    """Of the model of a test."""
    return AutoConfig.for_model(**{**SIZES, **MODELS[name], **changes})


def architecture_of(name: str) -> str:
    """What a file calls the model of a test."""
    return FILED.get(name, name.split()[0])


def tiny_model(architecture: str, **changes: Any) -> Any:
    """A random model; norms are random too, so that a forgotten offset shows."""
    torch.manual_seed(3)
    config = configuration(architecture, **changes)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name or "sinks" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model
