"""Tiny configurations of decoders that tell places apart in ways of their own: rotary embeddings in
complex numbers or of two tables, attention in chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .zoo import _DECODER, _GROUPED_EXPERTS, _LATENT, LENGTH, WINDOW, _make

# Every other layer has experts, each of which every token goes through; the second layer has no
# rotary embedding, and scales its queries by how many tokens came before.
_LLAMA4 = {
    **_DECODER,
    "head_dim": 8,
    "intermediate_size": 16,
    "intermediate_size_mlp": 64,
    "num_local_experts": 4,
    "num_experts_per_tok": 1,
    "interleave_moe_layer_step": 2,
    "no_rope_layers": [1, 0, 1],
    "floor_scale": 3,
}


def in_chunks(size: int) -> Callable[[], Any]:
    """Of attention in chunks of ``size``."""
    return _make("Llama4TextConfig", **_LLAMA4, attention_chunk_size=size)


# name -> (configuration, how it must be captured)
PLACES: dict[str, tuple[Callable[[], Any], str]] = {
    # It turns its heads as complex numbers.
    "deepseek-v2": (
        _make(
            "DeepseekV2Config",
            **{**_GROUPED_EXPERTS, **_LATENT},
            topk_method="group_limited_greedy",
        ),
        "stamped",
    ),
    # Which scales them as well.
    "deepseek-v2-yarn": (
        _make(
            "DeepseekV2Config",
            **{**_GROUPED_EXPERTS, **_LATENT, "q_lora_rank": None},
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 8,
                "mscale": 0.7,
                "mscale_all_dim": 0.3,
            },
        ),
        "stamped",
    ),
    # Built for no more than one chunk.
    "llama4": (in_chunks(LENGTH), "stamped"),
    "llama4-two-experts": (
        _make(
            "Llama4TextConfig",
            **{**_LLAMA4, "num_experts_per_tok": 2},
            attention_chunk_size=LENGTH,
            use_qk_norm=False,
        ),
        "stamped",
    ),
    # Each of its layers has a rotary embedding of its own.
    "moshi": (
        _make("MoshiConfig", **{**_DECODER, "ffn_dim": 64, "sliding_window": WINDOW}),
        "stamped",
    ),
    "llama4-chunks": (in_chunks(7), "plain"),
}

# Two sets of frequencies; which one is used depends on the longest row of a call.
LONG_ROPE = _make(
    "Phi3Config",
    **_DECODER,
    original_max_position_embeddings=8,
    rope_parameters={
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "factor": 4.0,
        "short_factor": [1.0] * 4,
        "long_factor": [2.0, 3.0, 4.0, 5.0],
        "original_max_position_embeddings": 8,
    },
)
