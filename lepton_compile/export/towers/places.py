"""Where patches are, in a vision tower for pictures of any size: learned positions, and angles."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["angles", "stretched", "turned_heads"]


def stretched(table: nn.Embedding, places: Tensor, side: int, *, by_corners: bool) -> Tensor:
    """Rows of a table of positions, a square, stretched to a picture: (.., patches, width).

    Args:
        places: (.., patches, 2), rows and columns; those of the picture's end are the largest.
        side: rows and columns of the square.
        by_corners: whether the first and last patches lie on the first and last places; else the
            edges of both do, as pixels are resized.
    """
    rows, columns = (_between(axis, side, by_corners) for axis in places.unbind(-1))
    corners = [
        table(row * side + column) * (down * right)[..., None]
        for row, down in rows
        for column, right in columns
    ]
    return torch.stack(corners).sum(0)


def _between(
    axis: Tensor, side: int, by_corners: bool
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The two of ``side`` places that each patch lies between along an axis, and their shares."""
    last, here = axis.amax().to(torch.float32), axis.to(torch.float32)
    at = (here + 0.5) * side / (last + 1) - 0.5
    if by_corners:
        at = here * (side - 1) / last.clamp(min=1)
    low = at.floor()
    first = low.to(torch.int64)
    two = (first.clamp(0, side - 1), (first + 1).clamp(0, side - 1))
    return (two[0], 1 - (at - low)), (two[1], at - low)


def angles(rotary: Any, places: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin, (.., patches, width of a head / 2): half of them by row, half by column."""
    by_axis = places[..., None].to(torch.float32) * rotary.inv_freq
    turned = by_axis.flatten(-2)
    return turned.cos(), turned.sin()


def turned_heads(
    layer: Any, hidden: Tensor, by: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (1, heads, patches, width of a head) of patches (1, patches, width),
    of a layer with a projection for each; the first two are turned."""
    query, key, value = (
        project(hidden).unflatten(-1, (-1, layer.head_dim)).transpose(1, 2)
        for project in (layer.q_proj, layer.k_proj, layer.v_proj)
    )
    query, key = (torch.ops.lepton.turned(each, *by) for each in (query, key))
    return query, key, value
