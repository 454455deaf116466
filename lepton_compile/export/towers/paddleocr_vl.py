"""What the vision tower of PaddleOCR-VL makes of the patches of a picture of any size.

Positions are learned, in a square that is resized as pixels are, and heads are turned by rows and
columns. Patches of a token are put side by side behind the last layer.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from .attention import attend_all
from .convolved import convolved
from .places import angles, stretched

__all__ = ["attend", "features"]


def attend(network: Any) -> None:
    """Have the tower's layers attend to all patches by rows and columns that come with them, for
    good: layers are traced apart, after what calls them."""
    for layer in network.model.visual.vision_model.encoder.layers:
        layer.self_attn.forward = partial(attend_all, layer.self_attn, layer.self_attn.out_proj)


def features(network: Any, pixels: Tensor, places: Tensor) -> Tensor:
    """Features of the tokens of a picture, (tokens, width of the decoder).

    Args:
        pixels: (1, tokens, patches, numbers).
        places: (1, tokens, patches, 2), rows and columns.
    """
    tower, patches = network.model.visual.vision_model, pixels.shape[2]
    embedded, places = tower.embeddings, places.flatten(1, 2)
    hidden = convolved(embedded.patch_embedding, pixels.flatten(1, 2))
    side = embedded.num_grid_per_side
    hidden = hidden + stretched(embedded.position_embedding, places, side, "bilinear")
    turned = angles(tower.encoder.rotary_pos_emb, places)
    for layer in tower.encoder.layers:
        hidden = layer(hidden, cu_seqlens=None, position_embeddings=turned)
    return _projected(network.model.projector, tower.post_layernorm(hidden), patches)


def _projected(projector: Any, hidden: Tensor, patches: int) -> Tensor:
    """(tokens, width of the decoder) of patches (1, patches of all tokens, width)."""
    normed = projector.pre_norm(hidden)[0]
    together = normed.reshape(-1, patches * normed.shape[-1])
    found: Tensor = projector.linear_2(projector.act(projector.linear_1(together)))
    return found
