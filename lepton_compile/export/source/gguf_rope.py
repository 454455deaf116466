"""Rotary embedding of a GGUF file as transformers describes it.

llama.cpp stores scaled frequencies as tensors of divisors, transformers as parameters. Leaving a
divisor out would compile a model that is silently wrong beyond a few thousand tokens, so what
cannot be expressed is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lepton_compile.errors import SourceError
from lepton_compile.export.checkpoint.base import read_bytes
from lepton_compile.export.checkpoint.gguf_header import GGUFHeader
from lepton_compile.export.source.gguf_metadata import refused

__all__ = ["PARTIAL", "divisors", "rope_parameters"]

PARTIAL = ("glm4", "phi3", "stablelm")  # a part of each head is turned
DEFAULT_THETA = 10000.0
SLIDING_THETA = 10000.0  # Gemma 3's local layers
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def rope_parameters(header: GGUFHeader, head_dim: int) -> dict[str, Any]:
    """The ``rope_parameters`` of the configuration.

    Raises:
        SourceError: a scaling that transformers cannot express for this architecture.
    """
    plain = {"rope_theta": float(header.key("rope.freq_base", DEFAULT_THETA))}
    rotary = int(header.key("rope.dimension_count", head_dim))
    if header.architecture in PARTIAL:
        plain["partial_rotary_factor"] = rotary / head_dim
    elif rotary != head_dim:
        raise _refused(header, f"rope.dimension_count {rotary} of {head_dim}")
    scaled = {**plain, **_scaling(header, rotary, plain["rope_theta"])}
    if header.architecture == "olmo2" and header.key("attention.sliding_window"):
        base = plain["rope_theta"]
    elif header.architecture == "gemma3":
        base = SLIDING_THETA
    else:
        return scaled
    local = float(header.key("rope.freq_base_swa", base))
    return {
        "full_attention": scaled,
        "sliding_attention": {"rope_type": "default", "rope_theta": local},
    }


def _scaling(header: GGUFHeader, rotary: int, theta: float) -> dict[str, Any]:
    if "rope_factors_long.weight" in header.tensors:
        return _longrope(header)
    if "rope_freqs.weight" in header.tensors:
        return _llama3(header, divisors(header, "rope_freqs.weight"), rotary, theta)
    # As llama.cpp: linear where the file does not say; older ones call the factor otherwise.
    kind = header.key("rope.scaling.type", "linear")
    factor = header.key("rope.scaling.factor", header.key("rope.scale_linear", 0.0)) or 1.0
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return {"rope_type": "default"}
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        return _yarn(header, factor)
    raise _refused(header, f"rope.scaling.type {kind}")


def _yarn(header: GGUFHeader, factor: float) -> dict[str, Any]:
    if (mix := header.key("rope.scaling.yarn_ext_factor", 1.0)) != 1.0:
        raise _refused(header, f"rope.scaling.yarn_ext_factor {mix}")
    found: dict[str, Any] = {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": header.key("rope.scaling.original_context_length"),
        "attention_factor": header.key("rope.scaling.yarn_attn_factor"),
        "beta_fast": header.key("rope.scaling.yarn_beta_fast"),
        "beta_slow": header.key("rope.scaling.yarn_beta_slow"),
        # llama.cpp rounds where the ramp begins and ends, GPT-OSS was trained without.
        "truncate": False if header.architecture == "gpt-oss" else None,
    }
    if header.architecture == "mistral3":  # what scales attention by position is told there
        found["llama_4_scaling_beta"] = header.key("attention.temperature_scale", 0.0)
        multiplier = header.key("rope.scaling.yarn_log_multiplier")
        found |= {"mscale": multiplier, "mscale_all_dim": multiplier}
    return {name: value for name, value in found.items() if value is not None}


def _longrope(header: GGUFHeader) -> dict[str, Any]:
    original = header.key("rope.scaling.original_context_length")
    if original is None:
        raise _refused(header, "rope_factors_long without an original context length")
    found = {
        "rope_type": "longrope",
        "long_factor": divisors(header, "rope_factors_long.weight").tolist(),
        "short_factor": divisors(header, "rope_factors_short.weight").tolist(),
        "original_max_position_embeddings": original,
    }
    if (attention := header.key("rope.scaling.attn_factor")) is not None:
        found["attention_factor"] = attention
    return found


def _llama3(header: GGUFHeader, found: np.ndarray, rotary: int, theta: float) -> dict[str, Any]:
    """Llama 3's parameters, if they give the divisors that the file holds."""
    frequency = theta ** -(np.arange(0, rotary, 2, dtype=np.float64) / rotary)
    factor = float(found.max())
    low, high = LLAMA3["low_freq_factor"], LLAMA3["high_freq_factor"]
    periods = LLAMA3["original_max_position_embeddings"] * frequency / (2 * np.pi)
    smooth = np.clip((periods - low) / (high - low), 0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth)
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-4):
        raise _refused(header, "rope_freqs that are not Llama 3's")
    return {"rope_type": "llama3", "factor": factor, **LLAMA3}


def divisors(header: GGUFHeader, name: str) -> np.ndarray:
    """The tensor ``name``, what frequencies are divided by. Raises SourceError."""
    tensor = header.tensors.get(name)
    if tensor is None or tensor.type != 0:
        raise _refused(header, f"{name} is missing or not float32")
    return read_bytes(header.path, tensor.offset, tensor.length).view("<f4")


def _refused(header: GGUFHeader, found: str) -> SourceError:
    return refused(header, found, "The rotary embedding of this GGUF file")
