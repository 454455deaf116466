"""What the vision tower of Gemma 4 makes of the patches of a picture of any size.

Positions are learned, for columns and rows apart, and heads are turned by both: the first half by
column, the second by row. Patches of a token are averaged in the end. Clipped layers have their
bounds in the checkpoint.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from .attention import attend_all
from .places import angles

__all__ = ["attend", "features"]

COLOURS = 3


def attend(network: Any) -> None:
    """Have the tower's layers attend to all patches by rows and columns that come with them, for
    good: layers are traced apart, after what calls them."""
    for layer in network.model.vision_tower.encoder.layers:
        own = layer.self_attn
        own.forward = partial(attend_all, own, own.o_proj, turn=_turned)


def features(network: Any, pixels: Tensor, places: Tensor) -> Tensor:
    """Features of the tokens of a picture, (tokens, width of the decoder).

    Args:
        pixels: (1, tokens, patches, numbers) from 0 to 1, those of a colour one behind another.
        places: (1, tokens, patches, 2), rows and columns.
    """
    tower, patches = network.model.vision_tower, pixels.shape[2]
    crossed = places.flatten(1, 2).flip(-1)
    hidden = _embedded(tower.patch_embedder, pixels.flatten(1, 2), crossed)
    turned = angles(tower.encoder.rotary_emb, crossed)
    for layer in tower.encoder.layers:
        hidden = layer(hidden, position_embeddings=turned)
    by_token = hidden.reshape(1, -1, patches, hidden.shape[-1])
    pooled = by_token.mean(2) * tower.pooler.root_hidden_size
    if tower.config.standardize:
        pooled = (pooled - tower.std_bias) * tower.std_scale
    found: Tensor = network.model.embed_vision(pooled)[0]
    return found


def _embedded(embedder: Any, pixels: Tensor, crossed: Tensor) -> Tensor:
    """(1, patches, width) of pixels (1, patches, numbers); ``crossed`` are columns and rows."""
    apart = pixels.reshape(*pixels.shape[:-1], COLOURS, -1)
    by_pixel = apart.transpose(-1, -2).flatten(-2)
    axes = torch.arange(2, device=crossed.device)
    learned = embedder.position_embedding_table[axes, crossed].sum(-2)
    hidden: Tensor = embedder.input_proj(2 * (by_pixel - 0.5)) + learned
    return hidden


def _turned(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Heads (1, heads, patches, width) of which each half is turned by an axis of its own."""
    halves = zip(*(each.chunk(2, dim=-1) for each in (heads, cos, sin)), strict=True)
    return torch.cat([torch.ops.lepton.turned(*half) for half in halves], dim=-1)
