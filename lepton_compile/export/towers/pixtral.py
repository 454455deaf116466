"""What Pixtral makes of the patches of a picture of any size: the vision tower of Mistral 3, and
of some LLaVAs.

Heads are turned by rows and columns: every other frequency goes with one of both. Patches of a
token are put together behind the last layer, those of a number one behind another.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

from lepton_compile.export.capture.attention import NAME

from .places import turned_heads

__all__ = ["attend", "features"]


def attend(network: Any) -> None:
    """Have the tower's layers attend to all patches by rows and columns that come with them, for
    good: layers are traced apart, after what calls them."""
    for layer in network.model.vision_tower.transformer.layers:
        layer.attention.forward = partial(_attend, layer.attention)


def features(network: Any, pixels: Tensor, places: Tensor) -> Tensor:
    """Features of the tokens of a picture, (tokens, width of the decoder).

    Args:
        pixels: (1, tokens, patches, numbers).
        places: (1, tokens, patches, 2), rows and columns.
    """
    model, patches = network.model, pixels.shape[2]
    tower, kernel = model.vision_tower, model.vision_tower.patch_conv
    hidden = functional.linear(pixels.flatten(1, 2), kernel.weight.flatten(1), kernel.bias)
    hidden = tower.ln_pre(hidden)
    angles = _angles(tower.patch_positional_embedding, places.flatten(1, 2))
    found = [hidden]
    for layer in tower.transformer.layers:
        found.append(layer(found[-1], None, position_embeddings=angles))
    wanted = network.config.vision_feature_layer
    chosen = [found[wanted]] if isinstance(wanted, int) else [found[number] for number in wanted]
    return _projected(model.multi_modal_projector, torch.cat(chosen, dim=-1), patches)


def _projected(projector: Any, hidden: Tensor, patches: int) -> Tensor:
    """(tokens, width of the decoder) of patches (1, patches of all tokens, width)."""
    if hasattr(projector, "patch_merger"):
        parts = projector.norm(hidden).unflatten(1, (-1, patches))
        hidden = projector.patch_merger.merging_layer(parts.transpose(-1, -2).flatten(2))
    found: Tensor = projector.linear_2(projector.act(projector.linear_1(hidden)))
    return found[0]


def _angles(rotary: Any, places: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin, (1, patches, width of a head / 2): half of them by row, half by column."""
    rows, columns = rotary.inv_freq.chunk(2)
    by_axis = [
        places[..., axis, None].to(torch.float32) * frequencies
        for axis, frequencies in enumerate((rows, columns))
    ]
    angles = torch.cat(by_axis, dim=-1)
    return angles.cos() * rotary.attention_scaling, angles.sin() * rotary.attention_scaling


def _attend(
    layer: Any,
    hidden_states: Tensor,
    attention_mask: None,
    position_embeddings: tuple[Tensor, Tensor],
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of patches (1, patches, width) to all of them."""
    query, key, value = turned_heads(layer, hidden_states, position_embeddings)
    found, _ = AttentionInterface()[NAME](
        layer, query, key, value, None, scaling=layer.scaling, is_causal=False
    )
    return layer.o_proj(found.flatten(2)), None
