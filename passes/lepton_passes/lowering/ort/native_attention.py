"""Lower attention to our own CPU kernels, from the ops of onnxruntime with the same meaning.

    Before   com.microsoft::GroupQueryAttention(q, k, v, past_key, past_value, ..)
             q, k, v = Split(qkv);  com.microsoft::MultiHeadAttention(q, k, v, , mask)
    After    ai.lepton.cpu::GroupQueryAttention(..), the inputs as they were
             ai.lepton.cpu::MultiHeadAttention(qkv, , , mask)

    Before   MultiHeadAttention(q, k, v, , mask), k and v of another text
    After    ai.lepton.cpu::MultiHeadAttention(q, Transpose(Reshape(k)), .. v .., mask)

Those are made once, and read anew for each token that is written: in heads, what a head reads lies
one behind the other. The kernels skip blocks of keys out of sight, and share the keys of a decode
step among threads.
Refuses: widths of heads that are no multiple of 8; a bias of scores; sinks where nothing is cached;
other types than fp32; inputs, outputs and attributes that our kernels do not have, which files may
use: positions, other masks than (batch, keys), or of little weight, caches beside plain attention.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lepton_passes.body import MICROSOFT, Body
from lepton_passes.contract import LeptonPass
from lepton_passes.dtypes import type_of
from lepton_passes.match import (
    SEQUENCE_MAJOR,
    input_at,
    rank_of,
    reads_another_cache,
    split_of,
    width_of,
)
from lepton_passes.origin import from_file
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["LowerNativeAttention"]

# Beyond past, lengths and tables: positions, bias, sinks, norms; and where ours has the sinks.
_CACHED_INPUTS, _SINKS, _OWN_SINKS = 9, 11, 14
_CACHED_DEFAULTS = {"do_rotary": 0, "rotary_interleaved": 0, "local_window_size": -1}
# Attributes with a meaning that ours have, and values of others that mean nothing.
_CACHED_KNOWN = {"num_heads", "kv_num_heads", "scale", "softcap", *_CACHED_DEFAULTS}
_CACHED_IDLE = {"smooth_softmax": (-1, 0), "qk_output": (0,)}
_PLAIN_KNOWN = {"num_heads", "scale", "unidirectional"}
_FILTER, _FILTERED = "mask_filter_value", -10000.0  # of scores out of sight; ours hides them
_MASKED, _AXES = 2, 3  # axes of a mask, and of heads side by side
_PRESENTS = 3  # outputs of a kernel that gives a cache


class LowerNativeAttention(LeptonPass):
    """Lower attention of onnxruntime to kernels of our own."""

    name = "lower-native-attention"
    summary = "Attention to kernels of our own"
    changes_numbers = True

    def rewrite(self, body: Body) -> None:
        for node in body.nodes("GroupQueryAttention", "MultiHeadAttention", domain=MICROSOFT):
            cached = node.op_type == "GroupQueryAttention"
            reason = _refuses_cached(body, node) if cached else _refuses(body, node)
            if type_of(body, node.inputs[0]) not in (ir.DataType.FLOAT, None):
                reason = "the kernel reads fp32 alone"
            if reason is not None:
                self.refuse(body, node, reason)
            elif cached:
                self._cached(body, node)
            else:
                self._plain(body, node)

    def _cached(self, body: Body, node: ir.Node) -> None:
        attributes: dict[str, int | float] = {
            name: node.attributes.get_int(name) for name in ("num_heads", "kv_num_heads")
        }
        attributes |= {
            name: node.attributes.get_int(name, default)
            for name, default in _CACHED_DEFAULTS.items()
        }
        attributes |= {name: node.attributes.get_float(name, 0.0) for name in ("scale", "softcap")}
        attributes["epsilon"] = 0.0  # of norms of heads, which lower-native-head-norm brings
        inputs = list(node.inputs[:_CACHED_INPUTS])
        sinks = input_at(node, _SINKS)
        if sinks is not None:
            inputs += [None] * (_OWN_SINKS - len(inputs)) + [sinks]
        new = body.emit(
            node,
            node.op_type,
            inputs,
            attributes,
            domain=CPU_DOMAIN,
            outputs=len(node.outputs),
        )
        body.replace_all(node.outputs, new.outputs)
        self.fire(body)

    def _plain(self, body: Body, node: ir.Node) -> None:
        query, key, value = node.inputs[:3]
        thirds = _thirds(body, node)
        if thirds is not None:
            query, key, value = thirds[0], None, None
        elif _of_another(query, key):
            key, value = (_in_heads(body, node, each) for each in (key, value))
        mask = node.inputs[4] if len(node.inputs) > 4 else None
        attributes = {
            "num_heads": node.attributes.get_int("num_heads"),
            "unidirectional": node.attributes.get_int("unidirectional", 0),
            "scale": node.attributes.get_float("scale"),
        }
        inputs = [query, key, value, mask]
        new = body.emit(node, node.op_type, inputs, attributes, domain=CPU_DOMAIN)
        body.replace(node.outputs[0], new.outputs[0])
        self.fire(body)


def _refuses_cached(body: Body, node: ir.Node) -> str | None:
    unknown = {*node.attributes} - _CACHED_KNOWN
    for name in sorted(unknown):
        idle = _CACHED_IDLE.get(name, ())
        if not idle or node.attributes.get_int(name) not in idle:
            return f"our kernel has no {name}"
    if len(node.outputs) != _PRESENTS and not _of_another_cache(body, node):
        return "our kernel gives a present of keys and one of values, and no more"
    others = (*node.inputs[_CACHED_INPUTS:_SINKS], *node.inputs[_SINKS + 1 :])
    if any(value is not None for value in others):
        return "positions, a bias or norms of heads are left to the kernel of onnxruntime"
    past = node.inputs[3]
    shape = past.shape if past is not None else None
    width = shape[3] if shape is not None and len(shape) == 4 else None
    if not isinstance(width, int) or width % 8:
        return f"heads of {width} are no multiple of 8"
    return None


def _of_another_cache(body: Body, node: ir.Node) -> bool:
    """Whether no keys are new. With one output a file may have some, and leave out the present."""
    return reads_another_cache(node) and not from_file(body.model)


def _refuses(body: Body, node: ir.Node) -> str | None:
    given = list(node.inputs) + [None] * 8
    if any(value is not None for value in (given[3], *given[5:])):
        return "a bias or a cache is left to the kernel of onnxruntime"
    if any(out.uses() or out.is_graph_output() for out in node.outputs[1:]):
        return "it gives a cache, which is left to the kernel of onnxruntime"
    if (reason := _refuses_mask(body, node, given[4])) is not None:
        return reason
    thirds = _thirds(body, node)
    widths = {thirds[1]} if thirds is not None else {width_of(value) for value in given[:3]}
    if None in widths:
        return "how wide queries, keys and values are is not known"
    width = widths.pop() if len(widths) == 1 else None
    if not width or width % (8 * node.attributes.get_int("num_heads")):
        return "heads of keys and values differ, or are no multiple of 8"
    ranks = {rank_of(body, value) for value in given[:3] if value is not None}
    if ranks - {None, _AXES}:
        return "heads are not side by side"
    return None if node.attributes.get_float("scale", 0.0) else "the scale is not given"


def _refuses_mask(body: Body, node: ir.Node, mask: ir.Value | None) -> str | None:
    if node.attributes.get_float(_FILTER, _FILTERED) > _FILTERED:
        return "what the mask hides has some weight"
    for name in sorted({*node.attributes} - _PLAIN_KNOWN - {_FILTER}):
        return f"our kernel has no {name}"
    rank = rank_of(body, mask)
    known = rank == _MASKED or (rank is None and not from_file(body.model))
    return None if mask is None or known else "the mask is not one of (batch, keys)"


def _of_another(query: ir.Value | None, key: ir.Value | None) -> bool:
    """Whether keys are known to be of another text than queries."""
    sizes = [v.shape for v in (query, key) if v is not None and v.shape is not None]
    return len(sizes) == 2 and sizes[0][1] != sizes[1][1]


def _in_heads(body: Body, node: ir.Node, value: ir.Value | None) -> ir.Value:
    """Rows of heads (batch, keys, heads * width) as (batch, heads, keys, width)."""
    assert value is not None
    assert value.shape is not None
    heads = node.attributes.get_int("num_heads")
    batch, keys, width = value.shape
    assert isinstance(width, int)
    sizes = body.constant_node(node, np.array([0, 0, heads, width // heads], np.int64))
    cut = body.emit(node, "Reshape", [value, sizes]).outputs[0]
    cut.type, cut.shape = value.type, ir.Shape([batch, keys, heads, width // heads])
    turned = body.emit(node, "Transpose", [cut], {"perm": SEQUENCE_MAJOR}).outputs[0]
    turned.type, turned.shape = value.type, ir.Shape([batch, heads, keys, width // heads])
    return turned


def _thirds(body: Body, node: ir.Node) -> tuple[ir.Value, int] | None:
    """What query, key and value are three equal pieces of, and how wide they are."""
    split = split_of(body, node.inputs[:3])
    if split is None or len(set(split[1])) != 1:
        return None
    return split[0], split[1][0]
