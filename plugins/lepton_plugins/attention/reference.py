"""The truth in numpy: slow, clear, and what every kernel is tested against."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_plugins.attention.variant import Variant

__all__ = [
    "append",
    "attention",
    "biased_attention",
    "cached_attention",
    "dequantize",
    "quantize",
]

Array = NDArray[Any]


def quantize(numbers: Array, scale: float, dtype: str) -> Array:
    """``numbers / scale`` as a cache of ``dtype`` holds it, rounded half to even and saturated.

    Multiplied by the reciprocal in float32, as kernels do it. ``dtype`` int8 or float8_e4m3fn;
    any other is a plain copy.
    """
    if dtype not in ("int8", "float8_e4m3fn"):
        return numbers
    scaled = numbers.astype(np.float32) * np.float32(1.0 / scale)
    if dtype == "int8":
        return np.asarray(np.rint(np.clip(scaled, -127, 127)).astype(np.int8))
    import ml_dtypes

    return np.asarray(np.clip(scaled, -448, 448).astype(ml_dtypes.float8_e4m3fn))


def dequantize(cache: Array, scale: float, precision: type[np.floating[Any]]) -> Array:
    """The numbers that ``cache`` stands for."""
    return np.asarray(cache.astype(np.float32).astype(precision) * precision(scale))


def append(new: Array, past_lengths: Array, cache: Array, scale: float, dtype: str) -> None:
    """Write ``new`` (batch, sequence, heads * head_dim) into ``cache`` (batch, heads, capacity,
    head_dim), in place, at each row's past length; what falls behind the capacity is dropped."""
    _, heads, capacity, head_dim = cache.shape
    for row, past in enumerate(past_lengths.tolist()):
        room = max(0, min(new.shape[1], capacity - past))
        tokens = new[row, :room].reshape(room, heads, head_dim).transpose(1, 0, 2)
        cache[row, :, past : past + room] = quantize(tokens, scale, dtype)


def attention(
    query: Array,
    past_lengths: Array,
    keys: Array,
    values: Array,
    variant: Variant,
    sinks: Array | None = None,
    precision: type[np.floating[Any]] = np.float64,
) -> Array:
    """Attention over caches that already hold the new keys; ``query`` (batch, sequence, Hq * D).

    Returns (batch, sequence, Hq * D) of ``precision``.
    """
    batch, sequence, _ = query.shape
    capacity, group = keys.shape[2], variant.group
    output = np.zeros((batch, sequence, variant.q_num_heads, variant.head_dim), precision)
    for row, past in enumerate(past_lengths.tolist()):
        length = min(past + sequence, capacity)
        q = query[row].reshape(sequence, variant.q_num_heads, variant.head_dim).astype(precision)
        k = dequantize(keys[row, :, :length], variant.key_scale, precision)
        v = dequantize(values[row, :, :length], variant.value_scale, precision)
        seen = _seen(past + np.arange(sequence), length, variant.window)
        for head in range(variant.q_num_heads):
            scores = _scores(q[:, head], k[head // group], variant)
            sink = None if sinks is None else precision(sinks[head])
            output[row, :, head] = (
                _softmax(np.where(seen, scores, -np.inf), sink) @ v[head // group]
            )
    return output.reshape(batch, sequence, -1)


def cached_attention(
    query: Array,
    key: Array,
    value: Array,
    past_lengths: Array,
    key_cache: Array,
    value_cache: Array,
    variant: Variant,
    sinks: Array | None = None,
    precision: type[np.floating[Any]] = np.float64,
) -> Array:
    """The whole op: appends to the caches in place, returns the output in ``precision``."""
    append(key, past_lengths, key_cache, variant.key_scale, variant.cache_dtype)
    append(value, past_lengths, value_cache, variant.value_scale, variant.cache_dtype)
    return attention(query, past_lengths, key_cache, value_cache, variant, sinks, precision)


def biased_attention(
    query: Array,
    keys: Array,
    values: Array,
    scale: float,
    bias: Array,
    shown: Array | None = None,
    precision: type[np.floating[Any]] = np.float64,
) -> Array:
    """Attention with numbers that are added to scores, which alone say what is seen.

    Args:
        query: (batch, sequence, heads * head_dim).
        keys: as ``values``, (batch, heads, keys, head_dim).
        bias: (1 or batch, 1 or heads, 1 or sequence, keys).
        shown: (batch, keys), 0 hides a key; a row without any gets zeros.

    Returns (batch, sequence, heads * head_dim) of ``precision``.
    """
    batch, heads, _, head_dim = keys.shape
    q = query.reshape(batch, -1, heads, head_dim).swapaxes(1, 2).astype(precision)
    scores = q @ keys.astype(precision).swapaxes(2, 3) * precision(scale) + bias.astype(precision)
    seen = np.array(shown is None or shown != 0, ndmin=2)[:, None, None, :]
    some = np.any(seen, -1, keepdims=True)
    weights = np.where(some, _softmax(np.where(seen | ~some, scores, -np.inf), None), 0)
    mixed = weights @ values.astype(precision)
    return np.asarray(mixed.swapaxes(1, 2).reshape(batch, -1, heads * head_dim))


def _seen(positions: Array, length: int, window: int) -> Array:
    """(sequence, length): whether the query at each position sees each key."""
    keys, own = np.arange(length)[None, :], positions[:, None]
    causal: Array = keys <= own
    return causal if window < 0 else causal & (keys > own - window)


def _scores(query: Array, keys: Array, variant: Variant) -> Array:
    scores: Array = (query @ keys.T) * query.dtype.type(variant.scale)
    if variant.softcap > 0:
        scores = np.tanh(scores / variant.softcap) * query.dtype.type(variant.softcap)
    return scores


def _softmax(scores: Array, sink: np.floating[Any] | None) -> Array:
    """Over the last axis; a sink takes part in the sum and in nothing else."""
    highest = scores.max(-1, keepdims=True)
    if sink is not None:
        highest = np.maximum(highest, sink)
    weights = np.exp(scores - highest)
    total = weights.sum(-1, keepdims=True)
    if sink is not None:
        total = total + np.exp(sink - highest)
    return np.asarray(weights / total)
