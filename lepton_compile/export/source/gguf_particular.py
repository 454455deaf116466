"""What only some architectures of GGUF files have in their configurations.

Some of it no file says, because llama.cpp knows it by the architecture: which layers have a window
or no rotary embedding, how routers weigh experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lepton_compile.export.checkpoint.gguf_header import GGUFHeader
from lepton_compile.export.source.gguf_gemma4 import gemma4
from lepton_compile.export.source.gguf_metadata import layer_types, needed, number, refused

__all__ = ["particular"]

Values = Mapping[str, Any]
WINDOW = "attention.sliding_window"


def particular(header: GGUFHeader, values: Values) -> dict[str, Any]:
    """The model type, and the values that are this architecture's own.

    Raises:
        SourceError: a key is missing, or says what cannot be expressed.
    """
    return PARTICULAR[header.architecture](header, values)


def _plain(model_type: str) -> Callable[[GGUFHeader, Values], dict[str, Any]]:
    """For architectures without values of their own."""
    return lambda header, values: {"model_type": model_type}


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


def _mistral3(header: GGUFHeader, values: Values) -> dict[str, Any]:
    """Ministral 3, or an earlier Mistral without its vision part."""
    scaled = header.key("rope.scaling.type") == "yarn"
    return {
        "model_type": "ministral3" if scaled else "mistral",
        "sliding_window": header.key(WINDOW),
    }


def _phi3(header: GGUFHeader, values: Values) -> dict[str, Any]:
    original = header.key("rope.scaling.original_context_length")
    return {
        "model_type": "phi3",
        "sliding_window": header.key(WINDOW),
        "original_max_position_embeddings": original or values["max_position_embeddings"],
    }


def _qwen2moe(header: GGUFHeader, values: Values) -> dict[str, Any]:
    dense = values["intermediate_size"]
    return {
        "model_type": "qwen2_moe",
        **_qwen_experts(header, values, weights_norm=False),
        "shared_expert_intermediate_size": number(
            header, "expert_shared_feed_forward_length", dense
        ),
    }


def _qwen_experts(header: GGUFHeader, values: Values, *, weights_norm: bool) -> dict[str, Any]:
    """Of both families; ``weights_norm`` is what a file means that does not say it."""
    used = needed(header, "expert_used_count")
    inner = values["intermediate_size"] // used
    return {
        "num_experts": needed(header, "expert_count"),
        "num_experts_per_tok": used,
        "moe_intermediate_size": number(header, "expert_feed_forward_length", inner),
        "norm_topk_prob": header.key("expert_weights_norm", weights_norm),
    }


def _qwen3moe(header: GGUFHeader, values: Values) -> dict[str, Any]:
    return {"model_type": "qwen3_moe", **_qwen_experts(header, values, weights_norm=True)}


def _granite(header: GGUFHeader, values: Values) -> dict[str, Any]:
    if not header.key("rope.scaling.finetuned", True):  # how llama.cpp says it
        raise refused(header, "granite without a rotary embedding")
    return {
        "model_type": "granite",
        "attention_multiplier": header.key("attention.scale", values["head_dim"] ** -0.5),
        "embedding_multiplier": header.key("embedding_scale", 1.0),
        "residual_multiplier": header.key("residual_scale", 1.0),
        "logits_scaling": needed(header, "logit_scale"),
        **_biases(header),
    }


def _olmo2(header: GGUFHeader, values: Values) -> dict[str, Any]:
    """OLMo 3 has a window."""
    if not header.key(WINDOW):
        return {"model_type": "olmo2"}
    return {
        "model_type": "olmo3",
        "sliding_window": header.key(WINDOW),
        "layer_types": layer_types(header, values["num_hidden_layers"], 4),
    }


def _smollm3(header: GGUFHeader, values: Values) -> dict[str, Any]:
    return {"model_type": "smollm3", "no_rope_layer_interval": 4, **_biases(header)}


def _glm4(header: GGUFHeader, values: Values) -> dict[str, Any]:
    if header.key("rope.dimension_sections") is not None:
        raise refused(header, "the language model of GLM-4.1V: positions on several axes")
    if header.key("nextn_predict_layers"):
        raise refused(header, "layers that predict further tokens")
    return {"model_type": "glm4", "attention_bias": "blk.0.attn_q.bias" in header.tensors}


def _lfm2(header: GGUFHeader, values: Values) -> dict[str, Any]:
    heads = header.key("attention.head_count_kv")
    if not isinstance(heads, np.ndarray) or heads.size != values["num_hidden_layers"]:
        raise refused(header, "attention.head_count_kv that does not say which layers have none")
    if len({int(each) for each in heads if each}) != 1:
        raise refused(header, f"attention.head_count_kv {heads.tolist()}")
    if header.key(WINDOW):
        raise refused(header, "lfm2 with a window")
    return {
        "model_type": "lfm2",
        "layer_types": ["full_attention" if each else "conv" for each in heads],
        "conv_L_cache": needed(header, "shortconv.l_cache"),
        "conv_bias": any(name.endswith("shortconv.in_proj.bias") for name in header.tensors),
        "block_auto_adjust_ff_dim": False,  # the file has what came of it
    }


def _starcoder2(header: GGUFHeader, values: Values) -> dict[str, Any]:
    return {
        "model_type": "starcoder2",
        "sliding_window": header.key(WINDOW),
        "use_bias": "blk.0.ffn_up.bias" in header.tensors,
    }


def _stablelm(header: GGUFHeader, values: Values) -> dict[str, Any]:
    return {
        "model_type": "stablelm",
        "use_qkv_bias": "blk.0.attn_q.bias" in header.tensors,
        # As llama.cpp: converters write yes where a configuration says nothing, which means no.
        "use_parallel_residual": "blk.0.ffn_norm.weight" not in header.tensors,
    }


def _cohere2(header: GGUFHeader, values: Values) -> dict[str, Any]:
    return {
        "model_type": "cohere2",
        "logit_scale": needed(header, "logit_scale"),
        "sliding_window": needed(header, WINDOW),
        "layer_types": layer_types(header, values["num_hidden_layers"], 4),
        "attention_bias": "blk.0.attn_q.bias" in header.tensors,
    }


def _exaone4(header: GGUFHeader, values: Values) -> dict[str, Any]:
    layers, window = values["num_hidden_layers"], header.key(WINDOW)
    return {
        "model_type": "exaone4",
        "sliding_window": window,
        "layer_types": layer_types(header, layers, 4) if window else ["full_attention"] * layers,
    }


def _gpt2(header: GGUFHeader, values: Values) -> dict[str, Any]:
    return {"model_type": "gpt2", "n_inner": values["intermediate_size"]}


PARTICULAR: dict[str, Callable[[GGUFHeader, Values], dict[str, Any]]] = {
    "cohere2": _cohere2,
    "exaone4": _exaone4,
    "gemma": _plain("gemma"),
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "gemma4": gemma4,
    "glm4": _glm4,
    "gpt-oss": _gpt_oss,
    "gpt2": _gpt2,
    "granite": _granite,
    "lfm2": _lfm2,
    "llama": _llama,
    "mistral3": _mistral3,
    "olmo2": _olmo2,
    "phi3": _phi3,
    "qwen2": _plain("qwen2"),
    "qwen2moe": _qwen2moe,
    "qwen3": _plain("qwen3"),
    "qwen3moe": _qwen3moe,
    "smollm3": _smollm3,
    "stablelm": _stablelm,
    "starcoder2": _starcoder2,
}
