"""The truth in numpy, in fp64: token after token."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["attend_linearly"]

Array = NDArray[Any]


def attend_linearly(
    query: Array,
    key: Array,
    value: Array,
    past: Array,
    decay: Array,
    beta: Array | None,
    scale: float,
) -> tuple[Array, Array]:
    """(batch, sequence, heads * width), and the state behind the last token."""
    batch, heads, depth, width = past.shape
    tokens = value.shape[1]

    def by_head(x: Array, size: int) -> Array:
        """(batch, sequence, heads, size); what heads share is repeated."""
        apart = x.astype(np.float64).reshape(batch, tokens, -1, size)
        return np.repeat(apart, heads // apart.shape[2], axis=2)

    q, k, v = by_head(query, depth), by_head(key, depth), by_head(value, width)
    gate = np.exp(decay.astype(np.float64)).reshape(batch, tokens, heads, -1, 1)
    state, y = past.astype(np.float64), np.zeros(v.shape)
    for t in range(tokens):
        state = state * gate[:, t]
        update = v[:, t]
        if beta is not None:
            known = np.einsum("bhkv,bhk->bhv", state, k[:, t])
            update = beta[:, t, :, None] * (update - known)
        state = state + k[:, t, :, :, None] * update[:, :, None, :]
        y[:, t] = scale * np.einsum("bhkv,bhk->bhv", state, q[:, t])
    return y.reshape(value.shape), state
