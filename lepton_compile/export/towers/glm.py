"""What the vision towers of GLM-4.1V, GLM-4.6V and GLM-OCR make of the patches of a picture of any
size.

Blocks are those of Qwen-VL. All but GLM-OCR's have learned positions in front, in a square that is
resized bicubically. Behind the last one patches of a token become one by a convolution.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .convolved import convolved
from .places import angles, stretched
from .qwen_vl import attend

__all__ = ["attend", "features"]


def features(network: Any, pixels: Tensor, places: Tensor) -> Tensor:
    """Features of the tokens of a picture, (tokens, width of the decoder).

    Args:
        pixels: (1, tokens, patches, numbers).
        places: (1, tokens, patches, 2), rows and columns.
    """
    tower, patches = network.model.visual, pixels.shape[2]
    places = places.flatten(1, 2)
    hidden = convolved(tower.patch_embed.proj, pixels.flatten(1, 2))
    if hasattr(tower, "embeddings"):
        table = tower.embeddings.position_embedding
        side = round(table.num_embeddings**0.5)
        hidden = tower.post_conv_layernorm(hidden) + stretched(table, places, side, "bicubic")
    turned = angles(tower.rotary_pos_emb, places)
    for block in tower.blocks:
        hidden = block(hidden, cu_seqlens=None, position_embeddings=turned)
    normed = tower.post_layernorm(hidden)[0]
    by_token = normed.reshape(-1, patches, normed.shape[-1]).transpose(1, 2).flatten(1)
    found: Tensor = tower.merger(convolved(tower.downsample, by_token))
    return found
