"""What a decoder goes on from before its first token: caches of no tokens, states of zeros."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lepton_passes.match import PAST

__all__ = ["with_empty_past"]


def with_empty_past(
    feed: Mapping[str, np.ndarray], wanted: Mapping[str, Sequence[object]]
) -> dict[str, np.ndarray]:
    """What of ``feed`` a graph takes, and for each of its inputs that holds what came before an
    fp32 array: of its dimensions after the batch, one with a name counts tokens, and is empty.

    Args:
        wanted: shapes of the inputs of the graph, by name.
    """
    batch = len(next(iter(feed.values())))
    full = {name: array for name, array in feed.items() if name in wanted}
    for name, shape in wanted.items():
        if name.startswith(PAST):
            sizes = [size if isinstance(size, int) else 0 for size in shape[1:]]
            full[name] = np.zeros((batch, *sizes), np.float32)
    return full
