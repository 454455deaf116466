"""The captured ops (``ops.py``) in the neutral dialect."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import fx

from lepton_compile.errors import ExportError
from lepton_compile.export import ops
from lepton_compile.export.dialect import DOMAIN

from .core import Handler, Translator

__all__ = ["HANDLERS"]


def _attention(t: Translator, node: fx.Node) -> ir.Value:
    """Heads move inside: (batch, heads, sequence, dim) becomes (batch, sequence, heads * dim)."""
    query, key, value, mask, scale, causal, window, softcap, cached, sinks = node.args
    at = t.path(node)
    inputs = [_sequence_major(t, n, at) for n in (query, key, value)]
    attributes = _numbers(query, key, scale, softcap)
    if mask is None and sinks is not None:
        raise ExportError("attention sinks stand where attention has no mask", where=at)
    if mask is None:
        attributes["is_causal"] = int(bool(causal))
        out = t.builder.op("Attention", inputs, attributes, at=at)
    else:
        attributes |= {"causal": int(bool(causal)), "window": window}
        out = _masked(t, node, [*inputs, _seen(t, mask, at)], attributes, bool(cached), at)
    return _by_head(t, node, out, at)


def _numbers(query: Any, key: Any, scale: Any, softcap: Any) -> dict[str, Any]:
    """Attributes of any attention, of query and key by heads."""
    heads, kv_heads = (int(n.meta["val"].shape[1]) for n in (query, key))
    return {"q_num_heads": heads, "kv_num_heads": kv_heads, "scale": scale, "softcap": softcap}


def _seen(t: Translator, mask: Any, at: str) -> ir.Value:
    """The mask as (batch, total)."""
    seen = t.value(mask)
    if len(mask.meta["val"].shape) == 4:
        seen = t.builder.op("Reshape", [seen, t.builder.ints(0, -1)], at=at)
    return seen


def _masked(
    t: Translator,
    node: fx.Node,
    inputs: list[ir.Value],
    attributes: dict[str, Any],
    cached: bool,
    at: str,
) -> ir.Value:
    given = [] if node.args[9] is None else [t.value(node.args[9])]
    if not cached:
        return t.builder.op("Attention", [*inputs, *given], attributes, domain=DOMAIN, at=at)
    key, value, mask = (node.args[i].meta["val"] for i in (1, 2, 3))  # type: ignore[union-attr]
    past = [_past(t, kind, fresh.shape) for kind, fresh in (("key", key), ("value", value))]
    marked = mask.dtype != torch.bool
    if given and marked:
        raise ExportError("attention has sinks, and tokens of pictures see each other", where=at)
    op_type = "MarkedAttention" if marked else "CachedAttention"
    made = t.builder.node(
        op_type, [*inputs, *past, *given], attributes, domain=DOMAIN, outputs=3, at=at
    )
    for present, fresh in zip(made.outputs[1:], (key, value), strict=True):
        present.dtype, present.shape = ir.DataType.FLOAT, _cache(t, fresh.shape, "total_sequence")
    t.presents[node.args[1]] = (made.outputs[1], made.outputs[2])  # type: ignore[index]
    t.caches.append((past[0], past[1], made.outputs[1], made.outputs[2]))
    t.windows.append(None if attributes["window"] < 0 else int(attributes["window"]))
    return made.outputs[0]


def _shared_attention(t: Translator, node: fx.Node) -> ir.Value:
    """Over keys and values that a layer is given, or that an attention before has made."""
    query, key, value, mask, scale, causal, window, softcap = node.args
    at = t.path(node)
    attributes = _numbers(query, key, scale, softcap)
    attributes |= {"causal": int(bool(causal)), "window": window}
    given = key.op == "placeholder"  # type: ignore[union-attr]
    if not given and key not in t.presents:
        raise ExportError("layers share keys and values that no cache holds", where=at)
    keys, values = (t.value(key), t.value(value)) if given else t.presents[key]  # type: ignore[index]
    inputs = [_sequence_major(t, query, at), keys, values, _seen(t, mask, at)]
    out = t.builder.op("SharedAttention", inputs, attributes, domain=DOMAIN, at=at)
    return _by_head(t, node, out, at)


def _by_head(t: Translator, node: fx.Node, out: ir.Value, at: str) -> ir.Value:
    """What attention made as (batch, sequence, heads, dim)."""
    shape = node.meta["val"].shape
    out.dtype = ir.DataType.FLOAT
    out.shape = ir.Shape([*t.dim_names(shape[:2]), int(shape[2]) * int(shape[3])])
    return t.builder.op("Reshape", [out, t.builder.ints(0, 0, int(shape[2]), int(shape[3]))], at=at)


def _append(t: Translator, node: fx.Node) -> list[ir.Value]:
    """The cache of a model whose attention is its own code: past and new, one after the other."""
    made: list[tuple[ir.Value, ir.Value]] = []
    for kind, fresh in zip(("key", "value"), node.args[:2], strict=True):
        shape = fresh.meta["val"].shape  # type: ignore[union-attr]
        past = _past(t, kind, shape)
        present = t.builder.op("Concat", [past, t.value(fresh)], {"axis": 2}, at=t.path(node))
        present.dtype, present.shape = ir.DataType.FLOAT, _cache(t, shape, "total_sequence")
        made.append((past, present))
    (past_key, key), (past_value, value) = made
    t.caches.append((past_key, past_value, key, value))
    t.windows.append(None)
    return [key, value]


def _past(t: Translator, kind: str, shape: Any) -> ir.Value:
    name = f"past_{kind}" + (f"_{len(t.caches)}" if t.caches else "")
    dims = _cache(t, shape, "past_sequence")
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=dims)


def _cache(t: Translator, shape: Any, length: str) -> ir.Shape:
    """That of a cache: (batch, heads, length, width)."""
    return ir.Shape([*t.dim_names(shape[:1]), int(shape[1]), length, int(shape[3])])


def _sequence_major(t: Translator, argument: Any, at: str) -> ir.Value:
    batch, heads, sequence, width = argument.meta["val"].shape
    turned = t.builder.op("Transpose", [t.value(argument)], {"perm": [0, 2, 1, 3]}, at=at)
    turned.dtype, turned.shape = ir.DataType.FLOAT, t.dim_names((batch, sequence, heads, width))
    flat = t.builder.op("Reshape", [turned, t.builder.ints(0, 0, int(heads) * int(width))], at=at)
    flat.dtype = ir.DataType.FLOAT
    flat.shape = ir.Shape([*t.dim_names((batch, sequence)), int(heads) * int(width)])
    return flat


def _constant(t: Translator, node: fx.Node) -> ir.Value:
    return t.builder.constant(ops.constants[int(node.args[0])])  # type: ignore[arg-type]


def _mask(t: Translator, node: fx.Node) -> ir.Value:
    return t.value(node.args[0])


def _wide_mask(t: Translator, node: fx.Node) -> ir.Value:
    return t.builder.op("Unsqueeze", [t.value(node.args[0]), t.builder.ints(1, 2)])


def _rms_norm(t: Translator, node: fx.Node) -> ir.Value:
    x, weight, epsilon, offset = node.args
    transform = f"offset:{offset}" if offset else ""
    scale = t.weight(weight, transform) if t.is_weight(weight) else t.value(weight)  # type: ignore[arg-type]
    attributes = {"axis": -1, "epsilon": float(epsilon), "stash_type": 1}  # type: ignore[arg-type]
    return t.builder.op("RMSNormalization", [t.value(x), scale], attributes, at=t.path(node))


def _rotary(t: Translator, node: fx.Node) -> ir.Value:
    x, cos, sin, interleaved = node.args
    width, rotated = int(x.meta["val"].shape[-1]), int(cos.meta["val"].shape[-1])  # type: ignore[union-attr]
    attributes = {"interleaved": int(bool(interleaved))}
    if rotated != width:
        attributes["rotary_embedding_dim"] = rotated
    return t.builder.op(
        "RotaryEmbedding", [t.value(x), t.value(cos), t.value(sin)], attributes, at=t.path(node)
    )


def _turned(t: Translator, node: fx.Node) -> ir.Value:
    return t.builder.op("RotaryEmbedding", [t.value(a) for a in node.args], at=t.path(node))


def _rotary_table(t: Translator, node: fx.Node) -> list[ir.Value]:
    """Rows of the tables by position; the tables are weights of the graph that export made."""
    positions, table, width = node.args
    half = int(width) // 2  # type: ignore[arg-type]
    rows_of = _each_row(t, positions)  # type: ignore[arg-type]
    shape = ["batch", *t.dim_names(positions.meta["val"].shape[1:]), half]  # type: ignore[union-attr]
    return [_rows(t, f"rotary.{table}.{kind}", rows_of, shape, node) for kind in ("cos", "sin")]


def _rotary_axes(t: Translator, node: fx.Node) -> list[ir.Value]:
    """Each column of the rows that its axis asks for."""
    positions, table, _, axes = node.args
    columns = np.array(axes)
    shape = [*t.dim_names(positions.meta["val"].shape[1:]), len(columns)]  # type: ignore[union-attr]
    by_axis = [
        t.builder.op("Gather", [t.value(positions), t.builder.constant(np.array(axis, np.int64))])
        for axis in range(int(columns.max()) + 1)
    ]
    out = []
    for kind in ("cos", "sin"):
        first, *rest = (_rows(t, f"rotary.{table}.{kind}", p, shape, node) for p in by_axis)
        for axis, rows in enumerate(rest, 1):
            here = t.builder.constant(columns == axis)
            first = t.builder.op("Where", [here, rows, first], at=t.path(node))
            first.dtype, first.shape = ir.DataType.FLOAT, ir.Shape(shape)
        out.append(first)
    return out


def _rows(t: Translator, table: str, positions: ir.Value, shape: Any, node: fx.Node) -> ir.Value:
    """Those of a table, by position."""
    rows = t.builder.parameter(table, (0, shape[-1]), ir.DataType.FLOAT)
    value = t.builder.op("Gather", [rows, positions], {"axis": 0}, at=t.path(node))
    value.dtype, value.shape = ir.DataType.FLOAT, ir.Shape(shape)
    return value


def _each_row(t: Translator, positions: fx.Node) -> ir.Value:
    """Positions for every row of the batch: RotaryEmbedding does not broadcast one row."""
    value = t.value(positions)
    if positions.meta["val"].shape[0] != 1:
        return value
    shape = t.builder.op("Concat", [t.named_size("batch"), t.builder.ints(1)], {"axis": 0})
    return t.builder.op("Expand", [value, shape])


def _by_token(op_type: str) -> Handler:
    """An op whose last input is the number of a token."""

    def handler(t: Translator, node: fx.Node) -> ir.Value:
        *given, token = node.args
        values = [*map(t.value, given), t.builder.constant(np.array(token, np.int64))]
        return t.builder.op(op_type, values, domain=DOMAIN, at=t.path(node))

    return handler


def _function(op_type: str) -> Handler:
    def handler(t: Translator, node: fx.Node) -> ir.Value:
        return t.builder.op(
            op_type, [t.value(a) for a in node.args], domain=DOMAIN, at=t.path(node)
        )

    return handler


HANDLERS: dict[str, Handler] = {
    "lepton.attention": _attention,
    "lepton.shared_attention": _shared_attention,
    "lepton.append": _append,
    "lepton.constant": _constant,
    "lepton.mask": _mask,
    "lepton.marks": _mask,
    "lepton.marked_mask": _by_token("MarkedMask"),
    "lepton.wide_mask": _wide_mask,
    "lepton.rms_norm": _rms_norm,
    "lepton.rotary": _rotary,
    "lepton.rotary_axes": _rotary_axes,
    "lepton.rotary_table": _rotary_table,
    "lepton.turned": _turned,
    "lepton.positions": _function("Positions"),
    "lepton.keep_last": _function("KeepLast"),
    "lepton.placed": _by_token("Placed"),
}
