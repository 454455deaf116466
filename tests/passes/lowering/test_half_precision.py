"""Half precision: what is cast, what stays fp32, and how far the numbers move."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.contract import ROUNDING
from lepton_passes.emulation import Emulation
from lepton_passes.lowering.half_precision import LowerHalfPrecision
from lepton_passes.narrow import HalfRangeError
from tests.passes.support import LAYER, Arrays, assert_close, load, ops, random, reasons, run

FP16, BF16 = ir.DataType.FLOAT16, ir.DataType.BFLOAT16
HALVES = pytest.mark.parametrize("dtype", [FP16, BF16], ids=["fp16", "bf16"])

# Two layers of a decoder's kind: norm, rotary embedding, attention with a cache, residual sum.
TEXT = f"""
main (int64[b, s] input_ids, int64[b, t] attention_mask, int64[b, s] positions,
      float[b, 2, p, 8] past_0_key, float[b, 2, p, 8] past_0_value)
  => (float[b, s, 32] logits, float[b, 2, t, 8] present_0_key,
      float[b, 2, t, 8] present_0_value) {{
  x = Gather (table, input_ids)
  mask = Cast <to = 9> (attention_mask)
  cos = Gather (cos_table, positions)
  sin = Gather (sin_table, positions)
  [layers0] h, present_0_key, present_0_value = ai.lepton.layer.block (
    x, mask, cos, sin, norm_weight, q_weight, kv_weight, past_0_key, past_0_value)
  n = RMSNormalization <axis = -1, epsilon = 1e-6> (h, final_weight)
  t = Transpose <perm = [1, 0]> (table)
  logits = MatMul (n, t)
}}
{LAYER}
block (x, mask, cos, sin, norm, q_weight, kv_weight, past_key, past_value)
  => (y, present_key, present_value) {{
  n = RMSNormalization <axis = -1, epsilon = 1e-6> (x, norm)
  qt = Transpose <perm = [1, 0]> (q_weight)
  q = MatMul (n, qt)
  kt = Transpose <perm = [1, 0]> (kv_weight)
  k = MatMul (n, kt)
  qr = RotaryEmbedding <num_heads = 4> (q, cos, sin)
  kr = RotaryEmbedding <num_heads = 2> (k, cos, sin)
  o, present_key, present_value = ai.lepton.CachedAttention
    <q_num_heads = 4, kv_num_heads = 2, scale = 0.35, softcap = 0.0, causal = 1, window = -1>
    (qr, kr, k, mask, past_key, past_value)
  y = Add (x, o)
}}
"""


def decoder() -> tuple[ir.Model, Arrays]:
    angles = np.outer(np.arange(32), 0.7 ** np.arange(4)).astype(np.float32)
    weights = {
        "table": random(32, 32, seed=1),
        "cos_table": np.cos(angles),
        "sin_table": np.sin(angles),
        "norm_weight": 1 + random(32, seed=2, scale=0.1),
        "final_weight": 1 + random(32, seed=3, scale=0.1),
        "q_weight": random(32, 32, seed=4, scale=0.3),
        "kv_weight": random(16, 32, seed=5, scale=0.3),
    }
    feeds = {
        "input_ids": np.array([[3, 7, 19, 30]]),
        "attention_mask": np.ones((1, 6), np.int64),
        "positions": np.array([[2, 3, 4, 5]]),
        "past_key_values.0.key": random(1, 2, 2, 8, seed=6),
        "past_key_values.0.value": random(1, 2, 2, 8, seed=7),
    }
    model = load(TEXT, weights)
    for value in (*model.graph.inputs, *model.graph.outputs):
        if "_0_" in (value.name or ""):
            kind, layer, what = str(value.name).split("_")
            value.name = f"{'past_key_values' if kind == 'past' else kind}.{layer}.{what}"
    return model, feeds


@HALVES
@pytest.mark.parametrize("islands", [True, False])
def test_a_decoder_is_as_close_as_its_type(dtype: ir.DataType, islands: bool) -> None:
    model, feeds = decoder()
    before = run(model, feeds)
    done = LowerHalfPrecision(dtype, islands=islands)
    done(model)
    after = run(Emulation()(model), feeds)
    assert_close(before, after, ROUNDING[dtype])
    assert np.abs(before[0] - after[0]).max() > 1e-5, "nothing was rounded"
    assert done.fired == (9 if islands else 15)


def test_fp16_runs_on_kernels_for_fp16() -> None:
    model, feeds = decoder()
    before = run(model, feeds)
    LowerHalfPrecision(FP16, islands=True)(model)
    halves = {k: v.astype(np.float16) if v.dtype == np.float32 else v for k, v in feeds.items()}
    found = run(model, halves)
    assert [a.dtype for a in found] == [np.float32, np.float16, np.float16]
    assert_close(before, [a.astype(np.float32) for a in found], ROUNDING[FP16])


@HALVES
def test_interface_and_weights(dtype: ir.DataType) -> None:
    model, _ = decoder()
    LowerHalfPrecision(dtype)(model)
    graph = model.graph
    assert {v.name: v.dtype for v in graph.inputs if v.dtype != ir.DataType.INT64} == {
        "past_key_values.0.key": dtype,
        "past_key_values.0.value": dtype,
    }
    assert [v.dtype for v in graph.outputs] == [ir.DataType.FLOAT, dtype, dtype]
    assert [v.name for v in graph.outputs] == ["logits", "present.0.key", "present.0.value"]
    kept = {n for n, v in graph.initializers.items() if v.dtype == ir.DataType.FLOAT}
    assert kept == {"cos_table", "sin_table", "norm_weight", "final_weight"}
    suffix = "fp16" if dtype == FP16 else "bf16"
    halves = {n for n, v in graph.initializers.items() if v.dtype == dtype}
    assert halves == {f"{n}:{suffix}" for n in ("table", "q_weight", "kv_weight")}


def test_islands_stand_between_casts_and_are_not_cut() -> None:
    model, _ = decoder()
    LowerHalfPrecision(FP16)(model)
    names = ops(model, "block")
    assert names[:4] == ["Cast", "RMSNormalization", "Transpose", "Cast"]
    rotary = next(n for n in model.functions.values() if n.name == "block")
    turned = [n for n in rotary if n.op_type == "RotaryEmbedding"]
    assert all(v is not None and v.dtype == ir.DataType.FLOAT for n in turned for v in n.inputs)


def test_without_islands_kernels_take_halves() -> None:
    model, _ = decoder()
    LowerHalfPrecision(FP16, islands=False)(model)
    assert "Cast" not in ops(model, "block")
    assert all(v.dtype == FP16 for v in model.graph.initializers.values())


def test_a_second_run_changes_nothing() -> None:
    model, _ = decoder()
    LowerHalfPrecision(FP16)(model)
    before = ops(model), ops(model, "block")
    LowerHalfPrecision(FP16)(model)
    assert (ops(model), ops(model, "block")) == before


QUANTIZED = """
main (float[b, 64] x) => (float[b, 8] y) {
  d = DequantizeLinear <axis = 1, block_size = 32> (q, scale)
  t = Transpose <perm = [1, 0]> (d)
  y = MatMul (x, t)
}
"""


def test_scales_are_in_the_type_of_what_they_scale() -> None:
    q = np.random.default_rng(0).integers(-127, 127, (8, 64), dtype=np.int8)
    scale = np.abs(random(8, 2, scale=0.01)) + 0.001
    model = load(QUANTIZED, {"q": q, "scale": scale})
    feeds = {"x": random(3, 64)}
    before = run(model, feeds)
    LowerHalfPrecision(BF16)(model)
    assert {v.dtype for v in model.graph.initializers.values()} == {ir.DataType.INT8, BF16}
    assert_close(before, run(Emulation()(model), feeds), ROUNDING[BF16])


POOLED = """
main (float[b, s, 8] hidden, int64[b, s] mask) => (float[b, 8] pooled) {
  axis = Constant <value_ints: ints = [1]> ()
  axis2 = Constant <value_ints: ints = [2]> ()
  least = Constant <value_float: float = 1e-9> ()
  h = Gelu (hidden)
  one = Cast <to = 1> (mask)
  wide = Unsqueeze (one, axis2)
  seen = Mul (h, wide)
  total = ReduceSum <keepdims = 0> (seen, axis)
  count = ReduceSum <keepdims = 0> (wide, axis)
  some = Max (count, least)
  pooled = Div (total, some)
}
"""


def test_pooling_adds_up_in_fp32() -> None:
    model = load(POOLED)
    feeds = {"hidden": random(2, 5, 8), "mask": np.array([[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]])}
    before = run(model, feeds)
    done = LowerHalfPrecision(FP16)
    done(model)
    assert_close(before, run(Emulation()(model), feeds), ROUNDING[FP16])
    assert all(n.outputs[0].dtype == ir.DataType.FLOAT for n in model.graph if n.op_type == "Max")
    assert reasons(done) == ["its constant 1e-09 is zero in half precision"]
    bf16 = load(POOLED)
    again = LowerHalfPrecision(BF16)
    again(bf16)
    assert reasons(again) == []


MASKED = """
main (float[b, 8] x, bool[b, 8] seen) => (float[b, 8] y) {
  hidden = Constant <value_float: float = -3.4e38> ()
  g = Gelu (x)
  y0 = Where (seen, g, hidden)
  y = Gelu (y0)
}
"""


def test_constants_beyond_the_range_saturate() -> None:
    model = load(MASKED)
    LowerHalfPrecision(FP16)(model)
    constants = [n for n in model.graph if n.op_type == "Constant"]
    values = [
        n.attributes["value"].as_tensor().numpy() for n in constants if "value" in n.attributes
    ]
    assert np.float16(-65504) in values


def test_the_least_number_of_fp32_stays_finite_in_bf16() -> None:
    """Rounded to nearest it would be an infinity, and a row of them not a number."""
    model = load(MASKED.replace("-3.4e38", str(np.finfo(np.float32).min)))
    LowerHalfPrecision(BF16)(model)
    constants = [n.attributes for n in model.graph if n.op_type == "Constant"]
    tensors = [each["value"].as_tensor() for each in constants if "value" in each]
    halves = [t.numpy().astype(np.float32) for t in tensors if t.dtype == BF16]
    assert len(halves) == 1
    assert np.isfinite(halves[0]).all()


@pytest.mark.parametrize(("value", "words"), [(7e4, "70000"), (1e-9, "zero in fp16")])
def test_a_weight_outside_the_range_is_named(value: float, words: str) -> None:
    weights = {"w": np.full((8, 8), value, np.float32)}
    text = "main (float[b, 8] x) => (float[b, 8] y) { y = MatMul (x, w) }"
    model = load(text, weights)
    LowerHalfPrecision(FP16)(model)
    tensor = model.graph.initializers["w:fp16"].const_value
    assert tensor is not None
    with pytest.raises(HalfRangeError, match=f"^w .*{words}.*bf16"):
        tensor.numpy()
    wide = load(text, weights)
    LowerHalfPrecision(BF16)(wide)
    tensor = wide.graph.initializers["w:bf16"].const_value
    assert tensor is not None
    assert np.isfinite(tensor.numpy().astype(np.float32)).all()


def test_a_number_that_becomes_a_condition_stays_one() -> None:
    """Whatever its reader computes in: Where takes truths, and no halves."""
    model = load(
        """main (float[b, 8] x) => (float[b, 8] y) {
             h = MatMul (x, w)
             yes = Cast <to = 9> (h)
             z = Where (yes, h, x)
             y = MatMul (z, w)
           }""",
        {"w": random(8, 8, scale=0.4)},
    )
    before = run(model, ROWS)
    LowerHalfPrecision(FP16)(model)
    assert_close(before, run(model, ROWS), ROUNDING[FP16])


RESIZED = """
main (float[1, 2, 4, 4] x) => (float[1, 2, 8, 8] y) {
  h = Gelu (x)
  scales = Constant <value_floats = [1.0, 1.0, 2.0, 2.0]> ()
  r = Resize <mode = "nearest"> (h, , scales)
  y = Gelu (r)
}
"""
# Branches, each with what stands outside of it, and a weight of its own.
BRANCHED = """
main (float[b, 8] x) => (float[b, 8] y, float[b] most) {
  h = MatMul (x, w)
  some = ReduceMax <keepdims = 0> (x)
  none = Constant <value_float = 0.0> ()
  yes = Less (none, some)
  z = If (yes) <
    then_branch = one () => (float[b, 8] a) {
      a1 = If (yes) <
        then_branch = deep () => (float[b, 8] c) { c = MatMul (h, w) },
        else_branch = flat () => (float[b, 8] d) { d = Neg (h) }>
      own = Constant <value_float = 0.5> ()
      a = Add (a1, own)
    },
    else_branch = two () => (float[b, 8] e) { e = Identity (h) }>
  most = ReduceMax <keepdims = 0> (z, last)
  y = MatMul (z, w)
}
"""
LOOPED = """
main (float[b, 8] x) => (float[b, 8] y) {
  h = MatMul (x, w)
  times = Constant <value_int = 2> ()
  z = Loop (times, , h) <
    body = again (int64 i, bool on, float[b, 8] s) => (bool still, float[b, 8] t) {
      still = Identity (on)
      m = MatMul (s, w)
      t = Add (m, h)
    }>
  y = MatMul (z, w)
}
"""
SCANNED = """
main (float[b, 8] x) => (float[b, 8] y) {
  h = MatMul (x, w)
  f, o = Scan (g, h) <
    num_scan_inputs = 1,
    body = next (float[8] s, float[8] e) => (float[8] t, float[8] p) {
      t = Add (s, e)
      p = Mul (t, g)
    }>
  y = MatMul (o, w)
}
"""
CALLED = """
main (float[b, 8] x) => (float[b, 8] y, int64[b, 1] places) {
  h = MatMul (x, w)
  a, places = own.twice (h)
  y = MatMul (a, w)
}
<domain: "own", opset_import: ["" : 24]>
twice (x) => (y, places) {
  two = Constant <value_float = 2.0> ()
  y = Mul (x, two)
  places = ArgMax <axis = -1> (y)
}
"""
ROWS = {"x": random(3, 8)}
OWN_TYPES = {
    "Resize": (RESIZED, {"x": random(1, 2, 4, 4)}),
    "If": (BRANCHED, ROWS),
    "Loop": (LOOPED, ROWS),
    "Scan": (SCANNED, ROWS),
    "twice": (CALLED, ROWS),
}


@pytest.mark.parametrize("op_type", OWN_TYPES)
def test_what_keeps_its_types_is_given_what_it_came_with(op_type: str) -> None:
    """It runs on kernels for fp16: an emulation of it ran before, and no engine opened."""
    text, feeds = OWN_TYPES[op_type]
    weights = {"w": random(8, 8, scale=0.4), "g": random(8, seed=1), "last": np.array([-1])}
    model = load(text, {name: a for name, a in weights.items() if re.search(rf"\b{name}\b", text)})
    model.graph.opset_imports["own"] = 1
    before = run(model, feeds)
    done = LowerHalfPrecision(FP16)
    done(model)
    after = run(model, feeds)
    assert done.fired > 1
    assert [a.dtype for a in before] == [a.dtype for a in after]
    assert_close(before, after, ROUNDING[FP16])
    assert_close(before, run(Emulation()(model), feeds), ROUNDING[FP16])
    assert op_type in ops(model)


@HALVES
def test_only_what_onnx_has_in_fp32_stays_in_it(dtype: ir.DataType) -> None:
    model = load(RESIZED)
    LowerHalfPrecision(dtype)(model)
    (resize,) = [node for node in model.graph if node.op_type == "Resize"]
    x, _, scales = resize.inputs
    assert (x.dtype, scales.dtype, resize.outputs[0].dtype) == (dtype, ir.DataType.FLOAT, dtype)
