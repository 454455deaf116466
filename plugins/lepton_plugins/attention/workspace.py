"""How much scratch memory a plan reserves for decode steps, before it has seen a device.

On the device, a step's keys are cut into as many parts as are best for it (``decode_splits``), up
to ``most_splits``: what the workspace of the plan was reserved for.
"""

from __future__ import annotations

import functools

from lepton_plugins.attention.launch import DECODE_SEQUENCE, decode_splits, workspace
from lepton_plugins.attention.tiles import ARCHITECTURES, tiles_for
from lepton_plugins.attention.variant import Variant

__all__ = ["most_splits", "workspace_for"]


@functools.lru_cache(maxsize=4096)
def most_splits(variant: Variant, batch: int, sequence: int, capacity: int) -> int:
    """The most parts that a step's keys are cut into: what suits the largest device we know."""
    return max(
        decode_splits(
            variant,
            tiles_for("decode", name, variant),
            batch=batch,
            sequence=sequence,
            capacity=capacity,
            processors=architecture.processors,
        )
        for name, architecture in ARCHITECTURES.items()
    )


@functools.lru_cache(maxsize=256)
def workspace_for(variant: Variant, batch: int, sequence: int, capacity: int) -> int:
    """Bytes that suffice for every batch and sequence up to these."""
    sizes = (
        workspace(
            variant,
            batch=rows,
            sequence=tokens,
            splits=most_splits(variant, rows, tokens, capacity),
        ).size
        for rows in range(1, batch + 1)
        for tokens in range(1, min(sequence, DECODE_SEQUENCE) + 1)
    )
    return max(sizes, default=0)
