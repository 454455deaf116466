"""Attention of patches to all of a picture, of layers with a projection for each of the three."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from lepton_compile.export.capture.attention import NAME

__all__ = ["attend_all"]

Turn = Callable[[Tensor, Tensor, Tensor], Tensor]


def attend_all(
    layer: Any,
    project: Callable[[Tensor], Tensor],
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    turn: Turn = torch.ops.lepton.turned,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of patches (1, patches, width); ``project`` is what the layer ends with, and
    ``turn`` what turns heads (1, heads, patches, width) by cos and sin."""
    query, key, value = (_heads(layer, which, hidden_states) for which in "qkv")
    query, key = (turn(each, *position_embeddings) for each in (query, key))
    found, _ = AttentionInterface()[NAME](
        layer, query, key, value, None, scaling=layer.scaling, is_causal=False
    )
    return project(found.flatten(2)), None


def _heads(layer: Any, which: str, hidden_states: Tensor) -> Tensor:
    """(1, heads, patches, width), normed where the layer has norms."""
    heads = getattr(layer, f"{which}_proj")(hidden_states).unflatten(-1, (-1, layer.head_dim))
    norm = getattr(layer, f"{which}_norm", None)
    normed: Tensor = heads if norm is None else norm(heads)
    return normed.transpose(1, 2)
