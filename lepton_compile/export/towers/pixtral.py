"""What Pixtral makes of the patches of a picture of any size: the vision tower of Mistral 3,
of LightOnOCR, and of some LLaVAs.

Heads are turned by rows and columns: every other frequency goes with one of both. Patches of a
token are put together behind the last layer, those of a number one behind another.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from .attention import attend_all
from .convolved import convolved
from .places import angles

__all__ = ["attend", "features"]


def attend(network: Any) -> None:
    """Have the tower's layers attend to all patches by rows and columns that come with them, for
    good: layers are traced apart, after what calls them."""
    for layer in _tower(network).transformer.layers:
        own = layer.attention
        own.forward = partial(attend_all, own, own.o_proj)


def features(network: Any, pixels: Tensor, places: Tensor) -> Tensor:
    """Features of the tokens of a picture, (tokens, width of the decoder).

    Args:
        pixels: (1, tokens, patches, numbers).
        places: (1, tokens, patches, 2), rows and columns.
    """
    tower, patches = _tower(network), pixels.shape[2]
    found = [tower.ln_pre(convolved(tower.patch_conv, pixels.flatten(1, 2)))]
    rotary = tower.patch_positional_embedding
    turned = angles(rotary, places.flatten(1, 2), apart=True)
    for layer in tower.transformer.layers:
        found.append(layer(found[-1], None, position_embeddings=turned))
    wanted = getattr(network.config, "vision_feature_layer", -1)
    chosen = [found[wanted]] if isinstance(wanted, int) else [found[number] for number in wanted]
    return _projected(_projector(network.model), torch.cat(chosen, dim=-1), patches)


def _tower(network: Any) -> Any:
    """As LightOnOCR calls it, or as the others do."""
    model = network.model
    return model.vision_encoder if hasattr(model, "vision_encoder") else model.vision_tower


def _projector(model: Any) -> Any:
    """Likewise."""
    named = hasattr(model, "vision_projection")
    return model.vision_projection if named else model.multi_modal_projector


def _projected(projector: Any, hidden: Tensor, patches: int) -> Tensor:
    """(tokens, width of the decoder) of patches (1, patches of all tokens, width)."""
    if hasattr(projector, "patch_merger"):
        parts = projector.norm(hidden).unflatten(1, (-1, patches))
        hidden = projector.patch_merger.merging_layer(parts.transpose(-1, -2).flatten(2))
    found: Tensor = projector.linear_2(projector.act(projector.linear_1(hidden)))
    return found[0]
