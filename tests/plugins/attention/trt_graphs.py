"""Graphs of one attention node, as TensorRT's parser reads them."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto, helper

CAPACITY = 32
HEADS = {"q_num_heads": 4, "kv_num_heads": 1, "head_dim": 64}


def graph(
    dtype: int = TensorProto.FLOAT16,
    cache: int | None = None,
    *,
    sinks: bool = False,
    domain: str = "lepton",
    sizes: dict[str, int] | None = None,
    inputs: list[str] | None = None,
    **attributes: Any,
) -> onnx.ModelProto:
    """``lepton::CachedAttention`` alone, its batch and sequence open."""
    cache = dtype if cache is None else cache
    size = {"query": 256, "key": 64, "value": 64} | (sizes or {})
    names = ["query", "key", "value", "past_lengths", "key_cache", "value_cache"]
    names += ["sinks"] if sinks else []
    info = helper.make_tensor_value_info
    past = [1, CAPACITY, 64]
    given = [info(name, dtype, ["batch", "sequence", size[name]]) for name in names[:3]]
    given.append(info("past_lengths", TensorProto.INT32, ["batch"]))
    given += [info(name, cache, ["batch", *past]) for name in names[4:6]]
    made = [info("output", dtype, ["batch", "sequence", 256])]
    made += [info(name, cache, ["batch", *past]) for name in ("present_key", "present_value")]
    node = helper.make_node(
        "CachedAttention",
        names if inputs is None else inputs,
        [each.name for each in made],
        name="layers.0.attention",
        domain=domain,
        **(HEADS | attributes),
    )
    constants = [helper.make_tensor("sinks", TensorProto.FLOAT, [4], [0.5] * 4)] if sinks else []
    opsets = [helper.make_opsetid("", 24), helper.make_opsetid(domain, 1)]
    return helper.make_model(
        helper.make_graph([node], "attention", given, made, constants),
        opset_imports=opsets,
        ir_version=11,
    )


def profile(batch: tuple[int, int, int], sequence: tuple[int, int, int]) -> dict[str, list[Any]]:
    """Lowest, usual and highest shape of each input."""
    sizes = list(zip(batch, sequence, strict=True))
    shapes: dict[str, list[Any]] = {
        name: [[b, s, width] for b, s in sizes]
        for name, width in (("query", 256), ("key", 64), ("value", 64))
    }
    shapes["past_lengths"] = [[b] for b in batch]
    for name in ("key_cache", "value_cache"):
        shapes[name] = [[b, 1, CAPACITY, 64] for b in batch]
    return shapes
