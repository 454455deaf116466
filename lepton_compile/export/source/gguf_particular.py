"""What only some architectures of GGUF files have in their configurations.

Some of it no file says, because llama.cpp knows it by the architecture: which layers have a window
or no rotary embedding, how routers weigh experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lepton_compile.export.checkpoint.gguf_header import GGUFHeader
from lepton_compile.export.source.gguf_metadata import layer_types, needed, number

__all__ = ["particular"]

Values = Mapping[str, Any]
WINDOW = "attention.sliding_window"


def particular(header: GGUFHeader, values: Values) -> dict[str, Any]:
    """The model type, and the values that are this architecture's own.

    Raises:
        SourceError: a key is missing, or says what cannot be expressed.
    """
    return PARTICULAR[header.architecture](header, values)


def _gemma2(header: GGUFHeader, values: Values) -> dict[str, Any]:
    layers = values["num_hidden_layers"]
    return {
        "model_type": "gemma2",
        "sliding_window": header.key(WINDOW, 4096),
        "layer_types": layer_types(header, layers, 2),
        "attn_logit_softcapping": header.key("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": header.key("final_logit_softcapping", 30.0),
        "query_pre_attn_scalar": _query_scale(values, largest=46),
    }


def _gemma3(header: GGUFHeader, values: Values) -> dict[str, Any]:
    return {
        "model_type": "gemma3_text",
        "sliding_window": header.key(WINDOW),
        "query_pre_attn_scalar": _query_scale(values, largest=62),
    }


def _query_scale(values: Values, largest: int) -> int:
    """As llama.cpp: the query scale is the head's, but for the largest model."""
    if values["num_hidden_layers"] == largest:
        return int(values["hidden_size"] // values["num_attention_heads"])
    return int(values["head_dim"])


def _gpt_oss(header: GGUFHeader, values: Values) -> dict[str, Any]:
    return {
        "model_type": "gpt_oss",
        "intermediate_size": needed(header, "expert_feed_forward_length"),
        "num_local_experts": needed(header, "expert_count"),
        "num_experts_per_tok": needed(header, "expert_used_count"),
        "sliding_window": needed(header, WINDOW),
        "layer_types": layer_types(header, values["num_hidden_layers"], 2),
    }


def _llama(header: GGUFHeader, values: Values) -> dict[str, Any]:
    """llama.cpp files Mistral and Mixtral under llama: one has a window, the other experts."""
    if number(header, "expert_count"):
        return {
            "model_type": "mixtral",
            "num_local_experts": needed(header, "expert_count"),
            "num_experts_per_tok": needed(header, "expert_used_count"),
            "sliding_window": header.key(WINDOW),
        }
    if header.key(WINDOW):
        return {"model_type": "mistral", "sliding_window": header.key(WINDOW)}
    return {"model_type": "llama", **_biases(header)}


def _biases(header: GGUFHeader) -> dict[str, Any]:
    return {
        "attention_bias": "blk.0.attn_q.bias" in header.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in header.tensors,
    }


def _phi3(header: GGUFHeader, values: Values) -> dict[str, Any]:
    original = header.key("rope.scaling.original_context_length")
    return {
        "model_type": "phi3",
        "sliding_window": header.key(WINDOW),
        "original_max_position_embeddings": original or values["max_position_embeddings"],
    }


def _qwen2(header: GGUFHeader, values: Values) -> dict[str, Any]:
    return {"model_type": "qwen2"}


def _qwen2moe(header: GGUFHeader, values: Values) -> dict[str, Any]:
    used = needed(header, "expert_used_count")
    dense = values["intermediate_size"]
    return {
        "model_type": "qwen2_moe",
        "num_experts": needed(header, "expert_count"),
        "num_experts_per_tok": used,
        "moe_intermediate_size": number(header, "expert_feed_forward_length", dense // used),
        "shared_expert_intermediate_size": number(
            header, "expert_shared_feed_forward_length", dense
        ),
        "norm_topk_prob": header.key("expert_weights_norm", False),
    }


def _qwen3(header: GGUFHeader, values: Values) -> dict[str, Any]:
    return {"model_type": "qwen3"}


def _qwen3moe(header: GGUFHeader, values: Values) -> dict[str, Any]:
    used = needed(header, "expert_used_count")
    dense = values["intermediate_size"]
    return {
        "model_type": "qwen3_moe",
        "num_experts": needed(header, "expert_count"),
        "num_experts_per_tok": used,
        "moe_intermediate_size": number(header, "expert_feed_forward_length", dense // used),
        "norm_topk_prob": header.key("expert_weights_norm", True),
    }


PARTICULAR: dict[str, Callable[[GGUFHeader, Values], dict[str, Any]]] = {
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "gpt-oss": _gpt_oss,
    "llama": _llama,
    "phi3": _phi3,
    "qwen2": _qwen2,
    "qwen2moe": _qwen2moe,
    "qwen3": _qwen3,
    "qwen3moe": _qwen3moe,
}
