"""Attention and caches: what TensorRT rejects, and what it drops without a word.

Each check gives the reasons against one node, and nothing where it is fine.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.lowering.trt._cache_traces import CONCAT, SLICE, WRITES, origins
from lepton_passes.lowering.trt.forms import FUSED_WIDEST, plugin_lacks
from lepton_passes.match import input_at

__all__ = [
    "cache_update",
    "fused_attention",
    "multi_head",
    "plugin_attention",
    "standard_attention",
]

PADDED = "padded_bhnd"
UNFILLED = "{} keeps it from rows of the cache that are not filled"
KINDS = ("none", "upper_left", "lower_right")
EIGHT_BITS = (ir.DataType.INT8, ir.DataType.FLOAT8E4M3FN)
CACHE_TYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def standard_attention(body: Body, node: ir.Node) -> Iterator[str]:
    """``Attention`` of the standard."""
    if input_at(node, 6) is not None:
        yield "nonpad_kv_seqlen is dropped in silence; TRT_Attention takes kv_lengths"
    if input_at(node, 4) is not None or input_at(node, 5) is not None:
        yield "past_key and past_value are not supported; write the cache with TensorScatter"
    if node.attributes.get_float("softcap", 0.0) != 0:
        yield "softcap is not supported"
    if "softmax_precision" in node.attributes:
        yield "softmax_precision is not supported"
    if node.attributes.get_int("is_causal", 0):
        if input_at(node, 3) is not None:
            yield "a mask and is_causal exclude each other"
        if origins(body, node.inputs[1]):
            yield "is_causal counts from the upper left, which is wrong behind a cache"
    elif input_at(node, 3) is None and _padded(origins(body, node.inputs[1])):
        yield UNFILLED.format("no mask")
    yield from _mask_type(node)
    yield from _kernel(node)


def fused_attention(body: Body, node: ir.Node) -> Iterator[str]:
    """``TRT_Attention``."""
    yield from _fused_attributes(node)
    kind = node.attributes.get_string("causal_kind", "none")
    if kind not in KINDS:
        yield f"causal_kind is {kind!r}, not one of {', '.join(KINDS)}"
    if kind != "none" and input_at(node, 3) is not None:
        yield "a mask and causal_kind exclude each other"
    if input_at(node, 4) is not None:
        yield "input 4 counts queries of the packed form, which has no kernel"
    if len(node.inputs) > 6:
        yield "kv_lengths is input 5; what comes behind is ignored in silence"
    yield from _behind_cache(kind, node, origins(body, node.inputs[1]))
    yield from _mask_type(node)
    yield from _kernel(node)


def _fused_attributes(node: ir.Node) -> Iterator[str]:
    for name in node.attributes:
        if name == "packed_nhd":
            yield "packed_nhd has no kernel"
        elif name == "scale":
            yield "scale is ignored in silence; the query is to be scaled before"
        elif name in ("query_form", "kv_form"):
            if node.attributes.get_string(name) != PADDED:
                yield f"{name} is {node.attributes.get_string(name)!r}, which has no kernel"
        elif name not in ("causal_kind", "TRT_decomposable"):
            yield f"{name} is ignored in silence"


def _behind_cache(kind: str, node: ir.Node, found: set[str]) -> Iterator[str]:
    """How queries are kept from keys that are not theirs, or not there."""
    if kind == "upper_left" and found & {*WRITES, CONCAT}:
        yield "upper_left counts from the first key, which is wrong behind a cache"
    if not _padded(found) or input_at(node, 5) is not None:
        return
    if kind == "lower_right":
        yield "lower_right counts from the end of the cache, filled or not, without kv_lengths"
    elif kind == "none" and input_at(node, 3) is None:
        yield UNFILLED.format("neither mask nor kv_lengths")


def _padded(found: set[str]) -> bool:
    """Whether keys come from a cache of fixed length, and not from its filled part alone."""
    return bool(found & WRITES) and SLICE not in found


def _mask_type(node: ir.Node) -> Iterator[str]:
    query, mask = node.inputs[0], input_at(node, 3)
    if query is None or mask is None or query.dtype is None:
        return
    if mask.dtype not in (None, ir.DataType.BOOL, query.dtype):
        yield f"its mask is {mask.dtype}, its query {query.dtype}"


def multi_head(body: Body, node: ir.Node) -> Iterator[str]:
    """``MultiHeadAttention`` of com.microsoft."""
    if input_at(node, 4) is not None:
        yield "key_padding_mask is not supported"
    if input_at(node, 6) is not None or input_at(node, 7) is not None:
        yield "past_key and past_value are not supported"
    for name in node.attributes:
        if name not in ("num_heads", "scale", "unidirectional"):
            yield f"{name} is not supported"


def cache_update(body: Body, node: ir.Node) -> Iterator[str]:
    """``TensorScatter`` and ``TRT_KVCacheUpdate``: the cache that is written in place."""
    known = ("axis", "mode", *(["update_form"] if node.op_type == "TRT_KVCacheUpdate" else []))
    for name in node.attributes:
        if name not in known:
            yield f"{name} is ignored in silence"
    form = node.attributes.get_string("update_form", PADDED)
    if form != PADDED:
        yield f"update_form is {form!r}, where only {PADDED} exists"
    if node.attributes.get_string("mode", "linear") != "linear":
        yield "only linear mode is supported"
    if node.attributes.get_int("axis", -2) not in (-2, 2):
        yield "the cache is written along its third axis only"
    past = node.inputs[0]
    assert past is not None
    outer = body.arguments(past)
    if outer is None or not all(v.is_graph_input() for v in outer):
        yield "the cache is no input of the network"
    shape = (outer or [past])[0].shape
    if shape is None or len(shape) != 4 or not isinstance(shape[2], int):
        yield "the cache has no fixed length"
    if past.dtype not in (None, *CACHE_TYPES):
        yield f"a cache of {past.dtype}, where only FLOAT, FLOAT16 and BFLOAT16 exist"
    if not _leaves(body, node.outputs[0]):
        yield "the written cache is no output of the network"


def plugin_attention(body: Body, node: ir.Node) -> Iterator[str]:
    """``lepton::CachedAttention``, the op of the attention plugin."""
    heads, kv_heads, width = (
        node.attributes.get_int(name, 0) for name in ("q_num_heads", "kv_num_heads", "head_dim")
    )
    query = node.inputs[0]
    dtype = query.dtype if query is not None else None
    yield from plugin_lacks(heads, kv_heads, width, dtype)
    cache = node.inputs[4].dtype if node.inputs[4] is not None else None
    if None not in (dtype, cache) and cache not in (dtype, *EIGHT_BITS):
        yield f"a cache of {cache}, where the plugin has {dtype}, INT8 and FLOAT8E4M3FN"
    for index in (1, 2):
        if not _leaves(body, node.outputs[index]):
            yield "the written cache is no output of the network"


def _kernel(node: ir.Node) -> Iterator[str]:
    """Where no fused kernel exists and the node does not allow another way."""
    if node.attributes.get_int("TRT_decomposable", 0):
        return
    query = node.inputs[0]
    assert query is not None
    if query.dtype == ir.DataType.FLOAT:
        yield "no fused kernel computes in FLOAT, and TRT_decomposable is not set"
    width = _head_width(node, query)
    if width is not None and width > FUSED_WIDEST:
        yield f"no fused kernel has heads of {width}, and TRT_decomposable is not set"


def _head_width(node: ir.Node, query: ir.Value) -> int | None:
    last = query.shape[-1] if query.shape is not None else None
    if not isinstance(last, int) or query.shape is None:
        return None
    return last // node.attributes.get_int("q_num_heads", 1) if len(query.shape) == 3 else last


def _leaves(body: Body, value: ir.Value) -> bool:
    """Whether every call hands the value out of the network."""
    return value.is_graph_output() and all(v.is_graph_output() for v in body.results(value))
