"""What the vision tower of Qwen-VL makes of the patches of a picture of any size.

Patches of a token stand one behind another. Where most layers see windows alone (Qwen2.5-VL),
tokens come window by window, each as long as the others: what is beyond a picture's edge has the
row and column -1, and nobody sees it. RoPE in two dimensions: Wang et al., Qwen2-VL, 2024, https://arxiv.org/abs/2409.12191.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from lepton_compile.export.capture.attention import NAME, MaskRule, active

from .convolved import convolved
from .places import angles, stretched

__all__ = ["attend", "features"]


def attend(network: Any) -> None:
    """Have the tower's layers attend to all patches, or to windows of them, in place of their own
    code, for good: layers are traced apart, after what calls them."""
    tower = network.model.visual
    whole = set(getattr(tower, "fullatt_block_indexes", ()))
    for number, block in enumerate(tower.blocks):
        block.attn.whole = number in whole  # by which kinds of layers are told apart, too
        block.attn.forward = partial(_attend, block.attn)


def features(network: Any, pixels: Tensor, places: Tensor) -> Tensor:
    """Features of the tokens of a picture, (tokens, width), by layers that attend as above.

    Where the decoder adds those of earlier layers, too, they stand behind them: (tokens,
    (1 + layers) * width).

    Args:
        pixels: (windows, tokens, patches, numbers).
        places: (windows, tokens, patches, 2), rows and columns.
    """
    tower = network.model.visual
    hidden = convolved(tower.patch_embed.proj, pixels.flatten(1, 2))
    places = places.flatten(1, 2)
    if hasattr(tower, "pos_embed"):
        side = tower.num_grid_per_side
        hidden = hidden + stretched(tower.pos_embed, places, side, "corners")
    turned = angles(tower.rotary_pos_emb, places)
    masks = _masks(tower, places)
    earlier = [*getattr(tower, "deepstack_visual_indexes", ())]
    found: list[Tensor] = []
    for number, block in enumerate(tower.blocks):
        mask = masks[block.attn.whole]
        hidden = block(hidden, cu_seqlens=mask, position_embeddings=turned)
        if number in earlier:
            found.append(tower.deepstack_merger_list[earlier.index(number)](hidden))
    return torch.cat([tower.merger(hidden), *found], dim=-1)


def _masks(tower: Any, places: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """What the patches of a window see, and those of layers that see all; None where that is all
    there is."""
    if not hasattr(tower, "fullatt_block_indexes"):
        return None, None
    seen = places[..., 0] >= 0
    capture = active()
    found = []
    for each in (seen, seen.reshape(1, -1)):
        mask = torch.ops.lepton.mask(each)
        if capture is not None:
            capture.remember(mask, MaskRule(causal=False, window=-1))
        found.append(mask)
    return found[0], found[1]


def _attend(
    layer: Any,
    hidden: Tensor,
    cu_seqlens: Tensor | None,
    position_embeddings: tuple[Tensor, Tensor],
    **_: Any,
) -> Tensor:
    """Attention of patches (windows, patches, width), in each window or in all together."""
    windows, patches, width = hidden.shape
    query, key, value = (
        each.reshape(windows, patches, layer.num_heads, -1).transpose(1, 2)
        for each in layer.qkv(hidden).chunk(3, dim=-1)
    )
    if hasattr(layer, "q_norm"):
        query, key = layer.q_norm(query), layer.k_norm(key)
    query, key = (torch.ops.lepton.turned(each, *position_embeddings) for each in (query, key))
    if layer.whole:
        query, key, value = map(_together, (query, key, value))
    found, _ = AttentionInterface()[NAME](
        layer, query, key, value, cu_seqlens, scaling=layer.scaling, is_causal=False
    )
    return layer.proj(found.reshape(windows, patches, width))  # type: ignore[no-any-return]


def _together(heads: Tensor) -> Tensor:
    """All windows (windows, heads, patches, width) as one."""
    return heads.transpose(0, 1).flatten(1, 2)[None]
