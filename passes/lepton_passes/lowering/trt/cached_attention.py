"""Lower attention over a static cache to TensorRT's own layers.

    Before   o, present.. = lepton::CachedAttention(q, k, v, past_lengths, past_key, past_value)
    After    k' = TensorScatter(past_key, k, write_indices);  v' likewise
             o = TRT_Attention(q * scale, k', v', ..)

with rotary embeddings, heads and caches as (batch, heads, sequence, width). TRT_Attention has
neither scale nor window, and would silently ignore both. How a query is kept from keys that are not
there or not its to see is the form:

    native   causal_kind=lower_right and kv_lengths: query i sees keys j <= i + kv_length - sequence
    mask     a bias over the whole capacity, made once for each window in the main graph
    slice    the first ``cache_length`` keys, a shape input, then lower_right: rows of equal length
    plugin   the node stays as it is: the attention plugin
    matmul   products and a Softmax in fp32 (``written.py``) over the whole capacity, with that bias
    auto     native; mask for windows; plugin for what neither can say; matmul for what that lacks

A layer that the wanted form cannot say is declined with the reason, and gets the form of auto:
    a window                                   in native and slice
    softcap, sinks, heads wider than 256       in all but plugin and matmul
    sinks, a cache in 8 bits or of several capacities   in all but plugin
    heads that the plugin has no kernels for   in plugin
So is attention that is the model's own code.

Whether lower_right counts from kv_lengths has not been executed yet; mask rests on nothing open.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.lowering.trt.cache_values import CacheValues
from lepton_passes.lowering.trt.forms import FORM, FORMS, FUSED_WIDEST, plugin_lacks
from lepton_passes.lowering.trt.heads import DOMAIN, join_heads, scaled, split_heads
from lepton_passes.lowering.trt.written import written_attention
from lepton_passes.match import input_at
from lepton_plugins.attention.spec import SPEC

__all__ = ["CACHE_LENGTH", "LowerTrtCachedAttention"]

CACHE_LENGTH = "cache_length"
"""Input of the slice form, (1,) int64: tokens in the cache after this step, in every row."""


class LowerTrtCachedAttention(LeptonPass):
    """Lower attention over a static cache to TensorRT's own layers.

    Args:
        form: native, mask, slice, plugin, matmul or auto.
    """

    name = "lower-trt-cached-attention"
    summary = "Attention over a static cache to TensorRT's layers"
    changes_numbers = True
    counts_as = "attention"
    runs_on_cpu = False

    def __init__(self, form: str = "auto") -> None:
        super().__init__()
        if form not in (*FORMS, "auto"):
            raise ValueError(f"{form!r} is no form of attention: {', '.join(FORMS)}, auto")
        self._form = form

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self._values = CacheValues(model)
        return super().call(model)

    def rewrite(self, body: Body) -> None:
        for node in body.nodes("TensorScatter"):
            if node.metadata_props.get(FORM) == "own" and self._form != "auto":
                self.refuse(body, node, f"its attention is the model's own code, not {self._form}")
        for node in body.nodes(SPEC.name, domain=SPEC.namespace):
            if FORM in node.metadata_props:
                continue
            form = self._form_of(body, node)
            if form == "plugin":
                node.metadata_props[FORM] = form
            else:
                self._lower(body, node, form)
            self.fire(body)

    def _form_of(self, body: Body, node: ir.Node) -> str:
        wanted, special = self._form, _beyond_fused(node)
        if wanted == "matmul" and not _sinks(node) and not _of_the_cache(node):
            return wanted
        if special is not None or wanted == "plugin":
            if special is not None and wanted not in ("auto", "plugin"):
                self.refuse(body, node, f"{special}, which {wanted} has not: plugin")
            return self._plugin_or_written(body, node, special)
        return self._fused(body, node)

    def _plugin_or_written(self, body: Body, node: ir.Node, special: str | None) -> str:
        lacks = plugin_lacks(*_sizes(node), _dtype(node))
        if not lacks or _sinks(node) or _of_the_cache(node):
            return "plugin"
        form = "matmul" if special is not None else self._fused(body, node)
        if self._form == "plugin":
            self.refuse(body, node, f"{lacks[0]}: {form}")
        return form

    def _fused(self, body: Body, node: ir.Node) -> str:
        if _window(node) < 0:
            return self._form if self._form in ("mask", "slice") else "native"
        if self._form in ("native", "slice"):
            self.refuse(body, node, f"a window, which {self._form} has not: mask")
        return "mask"

    def _lower(self, body: Body, node: ir.Node, form: str) -> None:
        heads, kv_heads, width = _sizes(node)
        scale = node.attributes.get_float("scale") or width**-0.5
        query = scaled(body, node, split_heads(body, node, node.inputs[0], heads, width), scale)
        caches = [self._scatter(body, node, i, kv_heads, width, form) for i in (1, 2)]
        read = [query, *(each for _, each in caches)]
        if form == "matmul":
            mask = self._mask(body, node, ir.DataType.FLOAT)
            softcap = node.attributes.get_float("softcap", 0.0)
            out = written_attention(body, node, [*read, mask], _sizes(node), softcap)
            made = out.producer()
            assert made is not None
        else:
            made = self._fused_layer(body, node, read, form)
        made.metadata_props[FORM] = form
        joined = join_heads(body, node, made.outputs[0], heads, width)
        for old, new in zip(node.outputs, (joined, *(w for w, _ in caches)), strict=True):
            body.replace(old, new)

    def _fused_layer(self, body: Body, node: ir.Node, read: list[ir.Value], form: str) -> ir.Node:
        inputs: list[ir.Value | None] = [*read]
        attributes: dict[str, int | str] = {"TRT_decomposable": 1}
        if form == "mask":
            inputs.append(self._mask(body, node, _dtype(node) or ir.DataType.FLOAT))
        else:
            attributes["causal_kind"] = "lower_right"
        if form == "native":
            lengths = [self._values.kv_lengths()] * body.times
            inputs += [None, None, body.lift("kv_lengths", lengths)]
        made = body.emit(node, "TRT_Attention", inputs, attributes, domain=DOMAIN)
        made.outputs[0].type = read[0].type
        return made

    def _scatter(
        self, body: Body, node: ir.Node, index: int, heads: int, width: int, form: str
    ) -> tuple[ir.Value, ir.Value]:
        """(the cache with the new rows in it, what the attention reads of it)."""
        update = split_heads(body, node, node.inputs[index], heads, width)
        at = body.lift("write_indices", [self._values.write_indices()] * body.times)
        past = node.inputs[index + 3]
        assert past is not None
        written = body.emit(
            node, "TensorScatter", [past, update, at], {"axis": -2, "mode": "linear"}
        ).outputs[0]
        written.type, written.shape = past.type, past.shape
        if form != "slice":
            return written, written
        length = body.lift(CACHE_LENGTH, [self._cache_length(body.model)] * body.times)
        zero, axis = (body.constant_node(node, np.array([i])) for i in (0, 2))
        return written, body.emit(node, "Slice", [written, zero, length, axis]).outputs[0]

    def _mask(self, body: Body, node: ir.Node, dtype: ir.DataType) -> ir.Value:
        mask = self._values.mask(_capacity(node), _window(node), dtype)
        return body.lift(mask.name or "", [mask] * body.times)

    def _cache_length(self, model: ir.Model) -> ir.Value:
        for known in model.graph.inputs:
            if known.name == CACHE_LENGTH:
                return known
        made = ir.Value(
            name=CACHE_LENGTH, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1])
        )
        model.graph.inputs.insert(2, made)
        return made


def _beyond_fused(node: ir.Node) -> str | None:
    """What no fused kernel of TensorRT computes."""
    width = node.attributes.get_int("head_dim")
    if cache := _of_the_cache(node):
        return cache
    if node.attributes.get_float("softcap", 0.0) != 0:
        return "a softcap"
    if _sinks(node):
        return "sinks"
    return f"heads of {width}" if width > FUSED_WIDEST else None


def _sinks(node: ir.Node) -> bool:
    return input_at(node, 6) is not None


def _of_the_cache(node: ir.Node) -> str | None:
    """What the plugin alone can do with a cache."""
    past = node.inputs[4]
    if past is not None and past.dtype is not None and past.dtype.itemsize == 1:
        return "a cache in 8 bits"
    if past is not None and past.shape is not None and not isinstance(past.shape[2], int):
        return "a cache of several capacities"
    return None


def _sizes(node: ir.Node) -> tuple[int, int, int]:
    """Heads of queries, heads of keys and values, width."""
    heads, kv_heads, width = (
        node.attributes.get_int(name) for name in ("q_num_heads", "kv_num_heads", "head_dim")
    )
    return heads, kv_heads, width


def _dtype(node: ir.Node) -> ir.DataType | None:
    return node.inputs[0].dtype if node.inputs[0] is not None else None


def _capacity(node: ir.Node) -> int:
    shape = node.inputs[4].shape if node.inputs[4] is not None else None
    assert shape is not None
    size = shape[2]
    assert isinstance(size, int)
    return size


def _window(node: ir.Node) -> int:
    """The window, -1 where it hides nothing."""
    window = node.attributes.get_int("window", -1)
    return window if 0 <= window < _capacity(node) else -1
