"""The configuration of a GGUF file, from its metadata.

transformers can read it with ``gguf_file=``, but walks the vocabulary with numpy objects: 27 s
and 1.6 GB for Gemma. Here the header is read once, by our own reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_compile.errors import SourceError
from lepton_compile.export.checkpoint.gguf_architectures import ARCHITECTURES
from lepton_compile.export.checkpoint.gguf_header import GGUFHeader
from lepton_compile.export.source.gguf_gemma4 import gemma4_rope
from lepton_compile.export.source.gguf_metadata import number
from lepton_compile.export.source.gguf_particular import particular
from lepton_compile.export.source.gguf_rope import PARTIAL, rope_parameters
from lepton_compile.export.source.numbers import check_numbers

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
}
RMS_EPSILON = {"rms_norm_eps": "attention.layer_norm_rms_epsilon"}
EPSILON = "attention.layer_norm_epsilon"
EPSILONS = {
    "cohere2": {"layer_norm_eps": EPSILON},
    "gpt2": {"layer_norm_epsilon": EPSILON},
    "lfm2": {"norm_eps": RMS_EPSILON["rms_norm_eps"]},
    "stablelm": {"layer_norm_eps": EPSILON},
    "starcoder2": {"norm_epsilon": EPSILON},
}
KINDS = ("gemma4", "lfm2")  # whose layers differ in their numbers
SPECIAL_IDS = {
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "pad_token_id": "padding_token_id",
}
# Their classes derive the size of a head.
DERIVED = ("gpt2", "phi3", "qwen2", "stablelm")


def config_of(header: GGUFHeader) -> PretrainedConfig:
    """The transformers configuration that the metadata describes.

    Raises:
        SourceError: unknown architecture, a key that its configuration needs is missing, or
            something that its configuration cannot express; or a size that no model has.
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
        values = _config_values(header)
        check_numbers(values, header.path)
        config = AutoConfig.for_model(**values)
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
    epsilon = EPSILONS.get(header.architecture, RMS_EPSILON)
    keys = {**SHARED, **epsilon}
    missing = [key for key in keys.values() if header.key(key) is None]
    if missing or "token_embd.weight" not in header.tensors:
        raise SourceError(
            "The GGUF file lacks what a configuration needs.",
            where=str(header.path),
            found=f"missing: {', '.join(missing) or 'token_embd.weight'}",
        )
    values = {name: _value(header, key) for name, key in keys.items()}
    heads = values["num_attention_heads"]
    values["head_dim"] = head_dim = _head_dim(header, values["hidden_size"] // heads)
    values["num_key_value_heads"] = _value(header, "attention.head_count_kv", heads)
    values["vocab_size"] = header.tensors["token_embd.weight"].shape[0]
    values["tie_word_embeddings"] = "output.weight" not in header.tensors
    for name, key in SPECIAL_IDS.items():
        values[name] = header.metadata.get(f"tokenizer.ggml.{key}")
    values |= particular(header, values)
    if header.architecture == "gpt2":  # it learned its positions
        del values["num_key_value_heads"], values["intermediate_size"]
    elif header.architecture == "gemma4":
        values["rope_parameters"] = gemma4_rope(header)
    else:
        values["rope_parameters"] = rope_parameters(header, head_dim)
    if header.architecture in DERIVED:
        del values["head_dim"]
    return values


def _head_dim(header: GGUFHeader, derived: int) -> int:
    if header.architecture in DERIVED:
        return derived
    if header.architecture not in PARTIAL:
        derived = header.key("rope.dimension_count", derived)
    return int(header.key("attention.key_length", derived))


def _value(header: GGUFHeader, key: str, default: Any = None) -> Any:
    """A number for all layers; where they are of several kinds, its own function sees to them."""
    value = header.key(key, default)
    if header.architecture in KINDS and isinstance(value, np.ndarray):
        return int(value.max(initial=0))
    return number(header, key, default)
