"""Which integers of an engine hold what a checkpoint has quantized."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["EIGHT_BITS", "Integers", "four_bits", "widest"]

# Groups of 4 bits that kernels have.
GROUPS = (128, 64, 32)


@dataclass(frozen=True)
class Integers:
    """The narrowest integers of an engine that hold the values of a quantized tensor, or nearly so.

    Attributes:
        bits: 4 or 8.
        group: of 4 bits, columns that share a scale; ``None`` of 8, which share one by row.
        own: of 4 bits, kernels of our own alone have them: their groups have offsets, or they are
            twice small floats.
    """

    bits: int
    group: int | None = None
    own: bool = False


EIGHT_BITS = Integers(8)


def four_bits(columns: int, *, own: bool = False) -> Integers:
    """For integers of 4 bits of which so many columns share a scale: 8 bits, where kernels have no
    groups that divide those."""
    for group in GROUPS:
        if columns % group == 0:
            return Integers(4, group, own)
    return EIGHT_BITS


def widest(parts: Iterable[Integers | None]) -> Integers | None:
    """What holds all of several tensors."""
    found = set(parts)
    if len(found) == 1:
        return found.pop()
    return EIGHT_BITS
