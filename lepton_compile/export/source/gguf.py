"""The configuration of a GGUF file, from its metadata.

transformers can read it with ``gguf_file=``, but walks the vocabulary with numpy objects: 27 s
and 1.6 GB for Gemma. Here the header is read once, by our own reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lepton_compile.errors import SourceError
from lepton_compile.export.checkpoint.gguf_header import GGUFHeader
from lepton_compile.export.checkpoint.gguf_layout import ARCHITECTURES
from lepton_compile.export.source.gguf_rope import rope_parameters

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["config_of"]

# Configuration name -> metadata key, for what the architectures share.
SHARED = {
    "max_position_embeddings": "context_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "hidden_size": "embedding_length",
    "num_attention_heads": "attention.head_count",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
SPECIAL_IDS = {
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "pad_token_id": "padding_token_id",
}
SLIDING = ("gemma3", "phi3", "mistral")


def config_of(header: GGUFHeader) -> PretrainedConfig:
    """The transformers configuration that the metadata describes.

    Raises:
        SourceError: unknown architecture, or a key that its configuration needs is missing.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if header.architecture not in ARCHITECTURES:
        raise SourceError(
            "This GGUF architecture cannot be compiled.",
            where=str(header.path),
            found=header.architecture or "none",
            available=sorted(ARCHITECTURES),
            hint="Give the Hugging Face folder of the model instead.",
        )
    try:
        config = AutoConfig.for_model(**_config_values(header))
    except SourceError:
        raise
    except Exception as error:  # configurations validate themselves with types of their own
        raise SourceError(
            "The GGUF metadata does not make a configuration.",
            where=str(header.path),
            found=str(error),
        ) from error
    config.architectures = [AutoModelForCausalLM._model_mapping[type(config)].__name__]
    return config


def _config_values(header: GGUFHeader) -> dict[str, Any]:
    missing = [key for key in SHARED.values() if header.key(key) is None]
    if missing or "token_embd.weight" not in header.tensors:
        raise SourceError(
            "The GGUF file lacks what a configuration needs.",
            where=str(header.path),
            found=f"missing: {', '.join(missing) or 'token_embd.weight'}",
        )
    values = {name: header.key(key) for name, key in SHARED.items()}
    heads = values["num_attention_heads"]
    fallback = values["hidden_size"] // heads
    head_dim = header.key("attention.key_length", header.key("rope.dimension_count", fallback))
    if header.architecture in ("phi3", "qwen2"):  # their classes derive it
        head_dim = fallback
    else:
        values["head_dim"] = head_dim
    values["model_type"] = _model_type(header)
    values["num_key_value_heads"] = header.key("attention.head_count_kv", heads)
    values["vocab_size"] = header.tensors["token_embd.weight"].shape[0]
    values["tie_word_embeddings"] = "output.weight" not in header.tensors
    values["rope_parameters"] = rope_parameters(header, head_dim)
    for name, key in SPECIAL_IDS.items():
        values[name] = header.metadata.get(f"tokenizer.ggml.{key}")
    return values | _particular(header, values)


def _model_type(header: GGUFHeader) -> str:
    if header.architecture == "gemma3":
        return "gemma3_text"
    # llama.cpp files Mistral under llama; only Mistral has a window.
    if header.architecture == "llama" and header.key("attention.sliding_window"):
        return "mistral"
    return header.architecture


def _particular(header: GGUFHeader, values: dict[str, Any]) -> dict[str, Any]:
    """What only some architectures have."""
    found: dict[str, Any] = {}
    if values["model_type"].removesuffix("_text") in SLIDING:
        found["sliding_window"] = header.key("attention.sliding_window")
    if header.architecture == "gemma3":
        # As llama.cpp: the query scale is the head's, but for the largest model.
        largest = values["num_hidden_layers"] == 62
        scale = values["hidden_size"] // values["num_attention_heads"]
        found["query_pre_attn_scalar"] = scale if largest else values["head_dim"]
    if header.architecture == "phi3":
        original = header.key("rope.scaling.original_context_length")
        found["original_max_position_embeddings"] = original or values["max_position_embeddings"]
    if values["model_type"] == "llama":
        found["attention_bias"] = "blk.0.attn_q.bias" in header.tensors
        found["mlp_bias"] = "blk.0.ffn_up.bias" in header.tensors
    return found
