"""Tiny configurations of decoders that tell places apart in ways of their own: rotary embeddings in
complex numbers or of two tables, attention in chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .zoo import _DECODER, _GROUPED_EXPERTS, _LATENT, _make

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
