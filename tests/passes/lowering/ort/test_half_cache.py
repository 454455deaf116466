"""lower-half-cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.lowering.ort._kept_caches import OF_FILE
from lepton_passes.lowering.ort.half_cache import LowerHalfCache
from lepton_passes.origin import mark_file
from tests.passes.support import LAYER, assert_close, load, ops, random, reasons, run
from tests.plugins.cpu_library import needs_library

pytestmark = needs_library

OURS = """ai.lepton.cpu.GroupQueryAttention <num_heads = 4, kv_num_heads = 2, scale = 0.3,
        do_rotary = 0, rotary_interleaved = 0, local_window_size = -1, softcap = 0.0,
        epsilon = 0.0>"""
THEIRS = """com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2, scale = 0.3>"""
CACHES = [f"past_key_values.{layer}.{kind}" for layer in (0, 1) for kind in ("key", "value")]


def _decoder(second: str = OURS, inside: str = "", more: str = "", out: str = "") -> ir.Model:
    """Two layers of one function, and a third that reads the cache of the second."""
    p0, v0, p1, v1 = (f"p{i}" for i in range(4))
    model = load(
        f"""main (float[b, s, 32] x, float[b, 2, p, 8] {p0}, float[b, 2, p, 8] {v0},
          float[b, 2, p, 8] {p1}, float[b, 2, p, 8] {v1}, int32[b] lengths, int32 total)
          => (y, k0, w0, k1, w1{out}) {{
      batch = Shape <start = 0, end = 1> (x)
      rest = Constant <value_ints = [0, 16]> ()
      nothing = Concat <axis = 0> (batch, rest)
      none = ConstantOfShape (nothing)
      h0, k0, w0 = ai.lepton.layer.block (x, {p0}, {v0}, lengths, total, wq)
      q1 = MatMul (h0, wq)
      h1, k1, w1 = {second} (q1, , , {p1}, {v1}, lengths, total)
      y = {OURS} (h1, none, none, k1, w1, lengths, total)
      {more}
    }}
    {LAYER[:-2]}, "ai.lepton.cpu" : 1]>
    block (x, pk, pv, lengths, total, wq) => (y, ck, cv) {{
      q = MatMul (x, wq)
      {inside or f"y, ck, cv = {OURS} (q, , , pk, pv, lengths, total)"}
    }}""",
        {"wq": random(32, 64, scale=0.2)},
    )
    for value, name in zip(list(model.graph.inputs)[1:5], CACHES, strict=True):
        value.name = name
    for value in model.graph.outputs[1:]:  # as export leaves them
        value.type = ir.TensorType(ir.DataType.FLOAT)
        value.shape = ir.Shape(["b", 2, "p", 8])
    for function in model.functions.values():
        for value in function.inputs:
            if value.name in ("pk", "pv"):
                value.shape = ir.Shape(["b", 2, "p", 8])
    return model


def _feeds(dtype: Any) -> dict[str, np.ndarray]:
    # Numbers that a half holds: what is compared is what the pass does to new ones.
    caches = {
        name: random(1, 2, 9, 8, seed=i).astype(np.float16).astype(dtype)
        for i, name in enumerate(CACHES)
    }
    return {
        "x": random(1, 3, 32),
        **caches,
        "lengths": np.full(1, 8, np.int32),
        "total": np.array(9, np.int32),
    }


def _numbers(model: ir.Model, dtype: Any) -> list[np.ndarray]:
    return [array.astype(np.float32) for array in run(model, _feeds(dtype))]


def _types(model: ir.Model) -> list[ir.DataType | None]:
    return [v.dtype for v in (*list(model.graph.inputs)[1:5], *model.graph.outputs[1:5])]


def test_caches_are_halves_from_end_to_end() -> None:
    model = _decoder()
    before = _numbers(model, np.float32)
    half = LowerHalfCache()
    half(model)
    assert (half.fired, half.refusals) == (3, [])
    assert _types(model) == [ir.DataType.FLOAT16] * 8
    assert model.graph.outputs[0].dtype != ir.DataType.FLOAT16
    assert ops(model)[-3:] == ["MatMul", "GroupQueryAttention", "GroupQueryAttention"]
    assert_close(before, _numbers(model, np.float16), half.tolerances["fp32"])


def test_a_model_without_caches_is_left_alone() -> None:
    model = load("main (float[b, 4] x) => (y) { y = Neg (x) }")
    half = LowerHalfCache()
    half(model)
    assert (half.fired, half.refusals) == (0, [])


OTHERS = "it reads a cache, and is no attention of ours"


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"second": THEIRS}, OTHERS),
        ({"more": "other = Neg (k0)", "out": ", other"}, OTHERS),
        (
            {
                "inside": "both = Concat <axis = 2> (pk, pk) ck = Neg (both) cv = Neg (pv) "
                "y = Slice (x, total, total)"
            },
            OTHERS,
        ),
        (
            {"inside": f"y, ck, cv = {OURS} (q, , , pk, pv, lengths, total) z = Neg (ck)"},
            OTHERS,
        ),
    ],
)
def test_refuses_what_something_else_reads(how: dict[str, str], reason: str) -> None:
    model = _decoder(**how)
    half = LowerHalfCache()
    half(model)
    assert (half.fired, reasons(half)) == (0, [reason])
    assert ir.DataType.FLOAT16 not in _types(model)


@pytest.mark.parametrize("width", [2048, "w"])
def test_refuses_heads_of_which_the_kernel_makes_no_halves(width: int | str) -> None:
    model = _decoder()
    list(model.graph.inputs)[3].shape = ir.Shape(["b", 2, "p", width])
    half = LowerHalfCache()
    half(model)
    assert (half.fired, reasons(half)) == (
        0,
        ["heads are wider than 1024, or nobody knows how wide"],
    )


def test_refuses_caches_of_a_file() -> None:
    """Callers hold them, in the type that it gives them."""
    model = _decoder()
    mark_file(model)
    lowered = LowerHalfCache()
    lowered(model)
    assert (lowered.fired, reasons(lowered)) == (0, [OF_FILE])
    assert {value.dtype for value in list(model.graph.inputs)[1:5]} == {ir.DataType.FLOAT}
