"""A cache in 8 bits: the pair that says so, and the scales around the plugin's node.

    Before   CachedAttention(q, DequantizeLinear(QuantizeLinear(k, ks)), .. (v, vs) .., caches)
    After    CachedAttention(q * ks, k / ks, v / vs, .., caches in 8 bits) * vs

The plugin's kernels have the scales of a cache compiled in. Around the node they are weights of the
graph instead, so that all layers share one set of kernels; there the scales are 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.match import made_by

__all__ = ["CACHE_SCALE", "Rounded", "note_scales", "rounded", "scale_of", "scaled_by"]

CACHE_SCALE = "lepton.cache_scale"
"""Key in the metadata of a network's input: what one step of a cache in 8 bits stands for."""


@dataclass(frozen=True)
class Rounded:
    """What goes into a cache in 8 bits: the value before, its scale, the type."""

    source: ir.Value
    scale: ir.Value
    dtype: ir.DataType


def rounded(value: ir.Value | None) -> Rounded | None:
    """How ``value`` was rounded, None where it was not."""
    back = made_by(value, "DequantizeLinear")
    front = made_by(back.inputs[0], "QuantizeLinear") if back is not None else None
    if front is None:
        return None
    source, scale, dtype = front.inputs[0], front.inputs[1], front.outputs[0].dtype
    if source is None or scale is None or dtype is None:
        return None
    return Rounded(source, scale, dtype)


def scaled_by(
    body: Body, before: ir.Node, op_type: str, value: ir.Value | None, scale: ir.Value
) -> ir.Value:
    """``value`` times ``scale``, or divided by it."""
    assert value is not None
    out = body.emit(before, op_type, [value, scale]).outputs[0]
    out.type, out.shape = value.type, value.shape
    return out


def note_scales(body: Body, past: ir.Value | None, by: Rounded) -> None:
    """Give the caches of all layers their type, and keep what a step stands for in each."""
    tensors: Sequence[ir.TensorProtocol] = body.weights(by.scale) or ()
    outer = body.arguments(past)
    for cache, tensor in zip(outer or (), tensors, strict=True):
        cache.type = ir.TensorType(by.dtype)
        step = float(tensor.numpy().astype(np.float32).reshape(()))
        cache.metadata_props[CACHE_SCALE] = repr(step)


def scale_of(value: ir.Value) -> float | None:
    """What one step of this cache stands for, None where it is not in 8 bits."""
    noted = value.metadata_props.get(CACHE_SCALE)
    return float(noted) if noted is not None else None
