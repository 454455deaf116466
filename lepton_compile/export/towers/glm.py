"""What the vision towers of GLM-4.1V, GLM-4.6V and GLM-OCR make of the patches of a picture of any
size.

Blocks are those of Qwen-VL. All but GLM-OCR's have learned positions in front, in a square that is
resized bicubically. Behind the last one patches of a token become one by a convolution.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

from .places import angles, stretched
from .qwen_vl import attend

__all__ = ["attend", "features"]


def features(network: Any, pixels: Tensor, places: Tensor) -> Tensor:
    """Features of the tokens of a picture, (tokens, width of the decoder).

    Args:
        pixels: (1, tokens, patches, numbers).
        places: (1, tokens, patches, 2), rows and columns.
    """
    tower, kernel = network.model.visual, network.model.visual.patch_embed.proj
    places, patches = places.flatten(1, 2), pixels.shape[2]
    hidden = functional.linear(pixels.flatten(1, 2), kernel.weight.flatten(1), kernel.bias)
    if hasattr(tower, "embeddings"):
        table = tower.embeddings.position_embedding
        side = round(table.num_embeddings**0.5)
        hidden = tower.post_conv_layernorm(hidden) + stretched(table, places, side, "bicubic")
    turned = angles(tower.rotary_pos_emb, places)
    for block in tower.blocks:
        hidden = block(hidden, cu_seqlens=None, position_embeddings=turned)
    normed = tower.post_layernorm(hidden)[0]
    by_token = normed.reshape(-1, patches, normed.shape[-1]).transpose(1, 2).flatten(1)
    whole = tower.downsample
    merged: Tensor = functional.linear(by_token, whole.weight.flatten(1), whole.bias)
    found: Tensor = tower.merger(merged)
    return found
