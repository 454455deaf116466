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
from transformers import AttentionInterface

from lepton_compile.export.capture.attention import NAME

__all__ = ["attend", "features"]

COLOURS = 3


def attend(network: Any) -> None:
    """Have the tower's layers attend to all patches by rows and columns that come with them, for
    good: layers are traced apart, after what calls them."""
    for layer in network.model.vision_tower.encoder.layers:
        layer.self_attn.forward = partial(_attend, layer.self_attn)


def features(network: Any, pixels: Tensor, places: Tensor) -> Tensor:
    """Features of the tokens of a picture, (tokens, width of the decoder).

    Args:
        pixels: (1, tokens, patches, numbers) from 0 to 1, those of a colour one behind another.
        places: (1, tokens, patches, 2), rows and columns.
    """
    tower, patches = network.model.vision_tower, pixels.shape[2]
    crossed = places.flatten(1, 2).flip(-1)
    hidden = _embedded(tower.patch_embedder, pixels.flatten(1, 2), crossed)
    angles = _angles(tower.encoder.rotary_emb, crossed)
    for layer in tower.encoder.layers:
        hidden = layer(hidden, position_embeddings=angles)
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


def _angles(rotary: Any, crossed: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin by columns and by rows, (1, patches, 2, width of a head / 4)."""
    angles = crossed[..., None].to(torch.float32) * rotary.inv_freq
    return angles.cos() * rotary.attention_scaling, angles.sin() * rotary.attention_scaling


def _attend(
    layer: Any, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], **_: Any
) -> tuple[Tensor, None]:
    """Attention of patches (1, patches, width) to all of them."""
    query, key, value = (
        norm(project(hidden_states).unflatten(-1, (-1, layer.head_dim))).transpose(1, 2)
        for project, norm in (
            (layer.q_proj, layer.q_norm),
            (layer.k_proj, layer.k_norm),
            (layer.v_proj, layer.v_norm),
        )
    )
    query, key = (_turned(each, *position_embeddings) for each in (query, key))
    found, _ = AttentionInterface()[NAME](
        layer, query, key, value, None, scaling=layer.scaling, is_causal=False
    )
    return layer.o_proj(found.flatten(2)), None


def _turned(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Heads (1, heads, patches, width) of which each half is turned by an axis of its own."""
    halves = [
        torch.ops.lepton.turned(half, cos[..., axis, :], sin[..., axis, :])
        for axis, half in enumerate(heads.chunk(2, dim=-1))
    ]
    return torch.cat(halves, dim=-1)
