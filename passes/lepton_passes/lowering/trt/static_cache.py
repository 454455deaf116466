"""Give a decoder a cache of fixed capacity that is written in place.

    Before   inputs input_ids, attention_mask, logits_to_keep, past_key_values (batch, kv, past, D)
             o, present.. = ai.lepton::CachedAttention(q, k, v, mask, past_key, past_value)
    After    inputs input_ids, past_lengths (batch,) int32, past_key_values (batch, kv, capacity, D)
             o, present.. = lepton::CachedAttention(q, k, v, past_lengths, past_key, past_value)

``past_lengths`` counts the tokens that the cache holds of each row: the new keys go behind them, so
rows of different length are packed to the left and no mask is needed. ``lepton::CachedAttention``
is the op of the attention plugin; ``lower-trt-cached-attention`` says which layers need it.

With caches of several capacities the capacity is a dimension, ``capacity``, that profiles fix: the
plugin's node takes any. TensorScatter does not, so no other form can have them.

What goes into the cache rounded to 8 bits makes it a cache in 8 bits (``quantized_cache.py``).

A model whose attention is its own code has ``present = Concat(past, new)`` in its graph instead:
its caches become TensorScatter and its mask that of the cache (``_own_attention.py``).

Logits are those of the last position, (batch, 1, vocabulary). TensorRT builds a shape input
``logits_to_keep`` too, but it reserves memory for the most that a profile allows, 2 GB for a cache
of 4096 and the vocabulary of Gemma, so it is left out.

Refuses, and then changes nothing: attention that is not causal; a node that reads the mask itself;
a capacity that is unknown or beyond the rotary tables; own attention whose mask is not understood.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import DIALECT, LAYER_DOMAIN, Body, bodies, sweep
from lepton_passes.contract import LeptonPass
from lepton_passes.dtypes import fill_types
from lepton_passes.lowering.trt._causal import PADDING
from lepton_passes.lowering.trt._own_attention import OwnAttention
from lepton_passes.lowering.trt.cache_values import PAST_LENGTHS, CacheValues
from lepton_passes.lowering.trt.quantized_cache import note_scales, rounded, scaled_by
from lepton_passes.match import KEYS_AND_VALUES, input_at, is_decoder, made_by
from lepton_passes.tensors import cast
from lepton_plugins.attention.spec import SPEC

__all__ = ["OPEN", "LowerTrtStaticCache"]

CAPACITY = "the capacity of the cache is unknown: shapes.sequence"
OPEN = "capacity"
"""Dimension of caches of several capacities."""
_MOVES = ("Cast", "Identity", "Reshape", "Unsqueeze")
_COPIES = ("Cast", "Expand", "Tile", "Unsqueeze")
_READERS = ("Positions", "CachedAttention", *_MOVES)
_DROPPED = (PADDING, "logits_to_keep")


class LowerTrtStaticCache(LeptonPass):
    """Give a decoder a cache of fixed capacity.

    Args:
        capacity: tokens that a row of the cache has room for; ``None`` refuses decoders.
        several: it is the largest of several.
    """

    name = "lower-trt-static-cache"
    summary = "A static KV cache of fixed capacity, written in place"
    changes_numbers = True
    counts_as = "cache"
    runs_on_cpu = False

    def __init__(self, capacity: int | None = None, *, several: bool = False) -> None:
        super().__init__()
        self._capacity = capacity
        self._length: int | str = OPEN if several else capacity or 0

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self.fired, self.refusals = 0, []
        if not is_decoder(model):
            return ir.passes.PassResult(model, modified=False)
        fill_types(model)
        own = OwnAttention(model, self._capacity or 1)
        masks = _mask_values(Body(model), {v for v in model.graph.inputs if v.name == PADDING})
        for body in bodies(model):
            self._check(body, masks, own)
        if self.refusals:
            return ir.passes.PassResult(model, modified=False)
        lengths = ir.Value(
            name=PAST_LENGTHS, type=ir.TensorType(ir.DataType.INT32), shape=ir.Shape(["batch"])
        )
        model.graph.inputs.insert(1, lengths)
        self._values = CacheValues(model)
        for body in bodies(model):
            self.rewrite(body)
        sweep(model)
        own.rewrite(self._values)
        self.fire(Body(model), len(own.caches) // 2)
        sweep(model)
        self._interface(model)
        fill_types(model)
        return ir.passes.PassResult(model, modified=True)

    def rewrite(self, body: Body) -> None:
        for node in body.nodes("Positions", domain=DIALECT):
            body.replace(node.outputs[0], self._values.positions())
        for node in body.nodes("KeepLast", domain=DIALECT):
            inputs = [node.inputs[0], body.lift("last", [self._values.last()] * body.times)]
            kept = body.emit(node, "Gather", inputs, {"axis": 1}).outputs[0]
            body.replace(node.outputs[0], kept)
            _shorten(kept)
        for node in body.nodes("CachedAttention", domain=DIALECT):
            self._attention(body, node)

    def _attention(self, body: Body, node: ir.Node) -> None:
        lengths = body.lift(PAST_LENGTHS, [self._values.past_lengths] * body.times)
        heads, width = _cache_sizes(body, node)
        attributes: dict[str, int | float] = {
            "q_num_heads": node.attributes.get_int("q_num_heads"),
            "kv_num_heads": heads,
            "head_dim": width,
            "scale": node.attributes.get_float("scale"),
            "softcap": node.attributes.get_float("softcap", 0.0),
            "window": node.attributes.get_int("window", -1),
        }
        query, key, value = node.inputs[:3]
        keys, values = rounded(key), rounded(value)
        if keys is not None and values is not None:
            note_scales(body, node.inputs[4], keys)
            note_scales(body, node.inputs[5], values)
            query = scaled_by(body, node, "Mul", query, keys.scale)
            key = scaled_by(body, node, "Div", keys.source, keys.scale)
            value = scaled_by(body, node, "Div", values.source, values.scale)
        inputs = [query, key, value, lengths, *node.inputs[4:6], *_sinks(body, node)]
        new = body.emit(node, SPEC.name, inputs, attributes, domain=SPEC.namespace, outputs=3)
        shape = ir.Shape(["batch", heads, self._length, width])
        for cache in (*new.inputs[4:6], *new.outputs[1:]):
            assert cache is not None
            cache.shape = shape
        out = new.outputs[0]
        if keys is not None and values is not None:
            out.type, out.shape = query.type if query is not None else None, node.outputs[0].shape
            out = scaled_by(body, node, "Mul", out, values.scale)
        for old, made in zip(node.outputs, (out, *new.outputs[1:]), strict=True):
            body.replace(old, made)
        self.fire(body)

    def _interface(self, model: ir.Model) -> None:
        graph = model.graph
        for value in [v for v in graph.inputs if v.name in _DROPPED]:
            graph.inputs.remove(value)
            graph.initializers.pop(value.name or "", None)
        for value in (*graph.inputs, *graph.outputs):
            if (value.name or "").startswith((KEYS_AND_VALUES, "present.")):
                sizes = list(value.shape or ())
                value.shape = ir.Shape([*sizes[:2], self._length, *sizes[3:]])
        for value in graph.outputs:
            if value.name == "logits" and value.shape is not None:
                value.shape = ir.Shape([value.shape[0], 1, value.shape[2]])

    def _check(self, body: Body, masks: set[ir.Value], own: OwnAttention) -> None:
        inside = _mask_values(body, {v for v in body.graph.inputs if _is_one_of(body, v, masks)})
        for node in body.nodes("CachedAttention", domain=DIALECT):
            if self._capacity is None:
                self.refuse(body, node, CAPACITY)
            if node.attributes.get_int("causal", 1) != 1:
                self.refuse(body, node, "it is not causal")
            if node.inputs[3] not in inside:
                self.refuse(body, node, "its mask is not the attention mask")
        for node in body.nodes("Gather", "GatherElements"):
            rows = _rows(node)
            if rows is not None and rows < (self._capacity or 0):
                self.refuse(body, node, f"a table of {rows} positions, {self._capacity} in a row")
        if own.caches and body.function is None:
            self._check_own(body, own)
            return
        for node in body.nodes():
            read = [v for v in node.inputs if v in inside]
            if read and node.op_type not in _READERS and node.domain != LAYER_DOMAIN:
                self.refuse(body, node, "it reads the attention mask, which is no input any more")

    def _check_own(self, body: Body, own: OwnAttention) -> None:
        if self._capacity is None:
            self.refuse(body, own.caches[0], CAPACITY)
            return
        if self._length == OPEN:
            reason = "its own attention has one capacity, not those of shapes.cache"
            self.refuse(body, own.caches[0], reason)
        for node, reason in own.refusals():
            self.refuse(body, node, reason)


def _cache_sizes(body: Body, node: ir.Node) -> tuple[int, int]:
    """(heads, width) of the cache of an attention."""
    past = node.inputs[4]
    arguments = body.arguments(past)
    shape = arguments[0].shape if arguments else None
    assert shape is not None
    heads, width = shape[1], shape[3]
    assert isinstance(heads, int)
    assert isinstance(width, int)
    return heads, width


def _sinks(body: Body, node: ir.Node) -> list[ir.Value]:
    """The sinks of an attention that has some, in fp32: the plugin takes no others."""
    found = input_at(node, 6)
    if found is None:
        return []
    return [body.derive([found], f"{found.name}:fp32", lambda t: cast(t[0], ir.DataType.FLOAT))]


def _rows(node: ir.Node) -> int | None:
    """Rows of a table that is looked up by position."""
    index, table = node.inputs[1], node.inputs[0]
    while node.op_type == "GatherElements" and (copies := made_by(index, *_COPIES)) is not None:
        index = copies.inputs[0]
    while node.op_type == "GatherElements" and (copies := made_by(table, *_COPIES)) is not None:
        table = copies.inputs[0]
    if made_by(index, "Positions", domain=DIALECT) is None or table is None:
        return None
    data = node.inputs[0]
    if table.shape is None or data is None or data.shape is None or not table.is_initializer():
        return None
    # Copies put axes in front, as that of the batch.
    axis = node.attributes.get_int("axis", 0) - (len(data.shape) - len(table.shape))
    rows = table.shape[axis] if axis >= 0 else 1
    return rows if isinstance(rows, int) else None


def _mask_values(body: Body, masks: set[ir.Value]) -> set[ir.Value]:
    """``masks`` of a body, and the same in other shapes and types."""
    found = set(masks)
    for node in body.nodes(*_MOVES):
        if node.inputs[0] in found:
            found.add(node.outputs[0])
    return found


def _is_one_of(body: Body, value: ir.Value, outer: set[ir.Value]) -> bool:
    """Whether all calls pass one of ``outer``."""
    return bool(outer & set(body.arguments(value) or ()))


def _shorten(value: ir.Value) -> None:
    if value.shape is not None and len(value.shape) == 3:
        value.shape = ir.Shape([value.shape[0], 1, value.shape[2]])
