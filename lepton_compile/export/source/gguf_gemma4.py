"""The configuration of Gemma 4 in a GGUF file: layers are of two kinds, with heads of two sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lepton_compile.export.checkpoint.gguf_header import GGUFHeader
from lepton_compile.export.source.gguf_metadata import layer_types, needed, number, refused
from lepton_compile.export.source.gguf_rope import divisors

__all__ = ["gemma4", "gemma4_rope"]

FULL = "full_attention"


def gemma4(header: GGUFHeader, values: Mapping[str, Any]) -> dict[str, Any]:
    """What is its own. Raises SourceError for what it cannot express."""
    layers = values["num_hidden_layers"]
    kinds = layer_types(header, layers, 6)
    if FULL not in kinds:
        raise refused(header, "gemma4 with a window in all layers")
    per_layer = number(header, "embedding_length_per_layer_input", 0)
    table = header.tensors.get("per_layer_token_embd.weight")
    shared = number(header, "attention.shared_kv_layers", 0)
    found = {
        "model_type": "gemma4_text",
        "layer_types": kinds,
        "sliding_window": needed(header, "attention.sliding_window"),
        "head_dim": needed(header, "attention.key_length_swa"),
        "global_head_dim": needed(header, "attention.key_length"),
        "num_kv_shared_layers": shared,
        "hidden_size_per_layer_input": per_layer,
        "vocab_size_per_layer_input": values["vocab_size"] if table is None else table.shape[0],
        "final_logit_softcapping": header.key("final_logit_softcapping"),
        **_widths(header, layers, shared),
        **_heads(header, values, kinds),
    }
    return found | (_experts(header) if number(header, "expert_count") else {})


def _widths(header: GGUFHeader, layers: int, shared: int) -> dict[str, Any]:
    """Layers that read the cache of another may be twice as wide."""
    said = np.broadcast_to(header.key("feed_forward_length"), layers)
    width, own = int(said[0]), layers - shared
    for double in (False, True):
        if (said[:own] == width).all() and (said[own:] == width * (1 + double)).all():
            return {"intermediate_size": width, "use_double_wide_mlp": double}
    raise refused(header, f"feed_forward_length {said.tolist()}")


def _heads(header: GGUFHeader, values: Mapping[str, Any], kinds: list[str]) -> dict[str, Any]:
    """Heads of keys and values, of layers with a window and of the others."""
    said = np.broadcast_to(
        header.key("attention.head_count_kv", values["num_attention_heads"]), len(kinds)
    )
    full = np.array([kind == FULL for kind in kinds])
    first = int(full.argmax())
    local, whole = int(said[0 if full.all() else int((~full).argmax())]), int(said[first])
    alike = f"blk.{first}.attn_v.weight" not in header.tensors
    if (said != np.where(full, whole, local)).any() or (local != whole and not alike):
        raise refused(header, f"attention.head_count_kv {said.tolist()}")
    return {
        "num_key_value_heads": local,
        "num_global_key_value_heads": whole,
        "attention_k_eq_v": alike,
    }


def _experts(header: GGUFHeader) -> dict[str, Any]:
    return {
        "enable_moe_block": True,
        "num_experts": needed(header, "expert_count"),
        "top_k_experts": needed(header, "expert_used_count"),
        "moe_intermediate_size": needed(header, "expert_feed_forward_length"),
    }


def gemma4_rope(header: GGUFHeader) -> dict[str, Any]:
    """Rotary embeddings of both kinds of layers. Raises SourceError."""
    full, local = needed(header, "attention.key_length"), needed(header, "attention.key_length_swa")
    turned = number(header, "rope.dimension_count_swa", local)
    if turned != local:
        raise refused(header, f"rope.dimension_count_swa {turned} of {local}")
    factors = divisors(header, "rope_freqs.weight")
    ones = int((factors == 1).sum())
    # Pairs that are not turned have a divisor without end, behind those that are.
    if factors.size != full // 2 or (factors[:ones] != 1).any() or (factors[ones:] < 1e9).any():
        raise refused(header, "rope_freqs that are not Gemma 4's")
    return {
        FULL: {
            "rope_type": "proportional",
            "partial_rotary_factor": ones / factors.size,
            "rope_theta": float(needed(header, "rope.freq_base")),
        },
        "sliding_attention": {
            "rope_type": "default",
            "rope_theta": float(header.key("rope.freq_base_swa", 10000.0)),
        },
    }
