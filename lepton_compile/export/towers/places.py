"""Where patches are, in a vision tower for pictures of any size: learned positions, and angles."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

__all__ = ["angles", "stretched"]


Resized = Literal["corners", "bilinear", "bicubic"]
Taps = list[tuple[Tensor, Tensor]]
"""Places along an axis that patches lie between, and the share of each."""
KEYS = -0.75


def stretched(table: nn.Embedding, places: Tensor, side: int, how: Resized) -> Tensor:
    """Rows of a table of positions, a square, stretched to a picture: (.., patches, width).

    Args:
        places: (.., patches, 2), rows and columns; those of the picture's end are the largest.
        side: rows and columns of the square.
        how: by ``corners`` the first and last patches lie on the first and last places; else the
            edges of both do, as pixels are resized.
    """
    along = _by_cubes if how == "bicubic" else _by_lines
    rows, columns = (along(_at(axis, side, how), side) for axis in places.unbind(-1))
    found = [
        table(row * side + column) * (down * right)[..., None]
        for row, down in rows
        for column, right in columns
    ]
    total: Tensor = sum(found[1:], found[0])
    return total


def _at(axis: Tensor, side: int, how: Resized) -> Tensor:
    """Where patches lie among ``side`` places along an axis."""
    last, here = axis.amax().to(torch.float32), axis.to(torch.float32)
    if how == "corners":
        return here * (side - 1) / last.clamp(min=1)
    return (here + 0.5) * side / (last + 1) - 0.5


def _by_lines(at: Tensor, side: int) -> Taps:
    low = at.floor()
    first = low.to(torch.int64)
    two = (first.clamp(0, side - 1), (first + 1).clamp(0, side - 1))
    return [(two[0], 1 - (at - low)), (two[1], at - low)]


def _by_cubes(at: Tensor, side: int) -> Taps:
    """Keys, Cubic convolution interpolation, 1981, with a = -0.75 as torch has it."""
    low = at.floor()
    first, found = low.to(torch.int64), Taps()
    for step in (-1, 0, 1, 2):
        far = (at - low - step).abs()
        if step in (0, 1):
            share = ((KEYS + 2) * far - (KEYS + 3)) * far * far + 1
        else:
            share = ((KEYS * far - 5 * KEYS) * far + 8 * KEYS) * far - 4 * KEYS
        found.append(((first + step).clamp(0, side - 1), share))
    return found


def angles(rotary: Any, places: Tensor, *, apart: bool = False) -> tuple[Tensor, Tensor]:
    """cos and sin, (.., patches, width of a head / 2): half of them by the first axis of places,
    half by the second.

    Args:
        apart: each axis has half of the frequencies for its own; else both have all of them.
    """
    frequencies = rotary.inv_freq.unflatten(0, (2, -1)) if apart else rotary.inv_freq
    by_axis = places[..., None].to(torch.float32) * frequencies
    turned = by_axis.flatten(-2)
    return turned.cos() * rotary.attention_scaling, turned.sin() * rotary.attention_scaling
