"""Keys and values of a cache in 8 bits, with scales that a sample gave, for TensorRT.

    Before   ai.lepton::CachedAttention(q, k, v, mask, past_key, past_value)
    After    the same of DequantizeLinear(QuantizeLinear(k, s, 0), s, 0), and of v likewise

One scalar ``s`` for the keys and one for the values of each layer, rotary embedding behind it: what
the cache will hold, written so that any runtime shows what it costs. ``lower-trt-static-cache``
takes the pair away and gives the cache itself 8 bits.

Place: behind ``calibrate`` and in front of all that rounds: ranges are of the fp32 model.
Refuses, and the build fails: attention that is the model's own code; heads that the attention
plugin, the only one with such a cache, has no kernels for; a layer that the sample did not reach.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from lepton_passes.body import DIALECT, Body, bodies
from lepton_passes.contract import LeptonPass, Tolerance
from lepton_passes.lowering.trt.forms import plugin_lacks
from lepton_passes.match import KEYS_AND_VALUES
from lepton_passes.quant.ranges import InputRange, readable

__all__ = ["CACHE_TYPES", "CacheMeasure", "QuantizeCache", "caches_in"]

CacheMeasure = Callable[[ir.Model], Mapping[str, InputRange]]
"""Runs a graph on a sample: range of what goes into each cache, by the name of its past."""

CACHE_TYPES = {"int8": ir.DataType.INT8, "fp8": ir.DataType.FLOAT8E4M3FN}
"""As a recipe names them."""

_KEY, _VALUE = (1, 4), (2, 5)
"""Inputs of the attention: what is new, and the past that it goes behind."""


def caches_in(body: Body, node: ir.Node) -> list[tuple[int, list[str]]]:
    """For keys and for values: the input that goes into a cache, and the cache of each call."""
    found = []
    for new, past in (_KEY, _VALUE):
        value = node.inputs[past]
        arguments = body.arguments(value)
        found.append((new, [each.name or "" for each in arguments or ()]))
    return found


def _unseen(model: ir.Model) -> dict[str, InputRange]:
    """Empty ranges, whose scale is 1: for plans, which run nothing."""
    return {
        name: InputRange()
        for body in bodies(model)
        for node in body.nodes("CachedAttention", domain=DIALECT)
        for _, names in caches_in(body, node)
        for name in names
    }


class QuantizeCache(LeptonPass):
    """Round what goes into caches to 8 bits.

    Args:
        dtype: INT8 or FLOAT8E4M3FN.
        measure: how ranges are found.
    """

    name = "quantize-cache"
    summary = "KV caches in 8 bits, scales calibrated on a sample"
    changes_numbers = True
    counts_as = "cache-format"
    must_not_refuse = True
    tolerances = dict.fromkeys(("fp32", "int8", "int4"), Tolerance(error=0.1, cosine=0.99))

    def __init__(
        self, dtype: ir.DataType = ir.DataType.INT8, measure: CacheMeasure = _unseen
    ) -> None:
        super().__init__()
        self._dtype, self._measure = dtype, measure

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self._ranges = self._measure(model)
        return super().call(model)

    def rewrite(self, body: Body) -> None:
        for node in body.nodes("CachedAttention", domain=DIALECT):
            caches = caches_in(body, node)
            reason = self._refuses(body, node, [name for _, names in caches for name in names])
            if reason is not None:
                self.refuse(body, node, reason)
                continue
            for index, names in caches:
                self._round(body, node, index, names)
            self.fire(body)
        for node in body.nodes("Concat"):
            past = node.inputs[0]
            if past is not None and (past.name or "").startswith(KEYS_AND_VALUES):
                self.refuse(body, node, "its attention is the model's own code")

    def _refuses(self, body: Body, node: ir.Node, names: list[str]) -> str | None:
        if any(name not in self._ranges for name in names):
            return "what goes into its cache was not seen on the sample"
        heads, kv_heads = (
            node.attributes.get_int(name) for name in ("q_num_heads", "kv_num_heads")
        )
        past = node.inputs[_KEY[1]]
        outer = body.arguments(past)
        width = outer[0].shape[3] if outer and outer[0].shape is not None else None
        if not isinstance(width, int):
            return "the width of its heads is unknown"
        return next(iter(plugin_lacks(heads, kv_heads, width, None)), None)

    def _round(self, body: Body, node: ir.Node, index: int, names: list[str]) -> None:
        fresh = node.inputs[index]
        assert fresh is not None
        kind = "key" if index == _KEY[0] else "value"
        scale = body.lift(f"{kind}_cache_scale", [self._scale(body, name) for name in names])
        zero = body.constant_node(node, np.zeros((), dtype=self._dtype.numpy()))
        rounded = body.emit(node, "QuantizeLinear", [fresh, scale, zero]).outputs[0]
        back = body.emit(node, "DequantizeLinear", [rounded, scale, zero]).outputs[0]
        back.type, back.shape = ir.TensorType(ir.DataType.FLOAT), fresh.shape
        node.replace_input_with(index, back)

    def _scale(self, body: Body, past: str) -> ir.Value:
        seen = self._ranges[past]
        whole = seen.int8_scale() if self._dtype == ir.DataType.INT8 else seen.fp8_scale()
        name = f"{past}:scale"
        return body.initializer(name, ir.tensor(np.float32(readable(whole)), name=name))
