"""Attention of patches to all of a picture, of layers with a projection for each of the three."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from lepton_compile.export.capture.attention import NAME

__all__ = ["attend_all"]


def attend_all(
    layer: Any,
    project: Callable[[Tensor], Tensor],
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of patches (1, patches, width); ``project`` is what the layer ends with."""
    query, key, value = (
        each(hidden_states).unflatten(-1, (-1, layer.head_dim)).transpose(1, 2)
        for each in (layer.q_proj, layer.k_proj, layer.v_proj)
    )
    query, key = (torch.ops.lepton.turned(each, *position_embeddings) for each in (query, key))
    found, _ = AttentionInterface()[NAME](
        layer, query, key, value, None, scaling=layer.scaling, is_causal=False
    )
    return project(found.flatten(2)), None
