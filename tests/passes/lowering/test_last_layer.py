"""lower-last-layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import InlinePass

from lepton_passes.contract import CLOSE, LeptonPass
from lepton_passes.lowering.last_layer import LowerLastLayer
from tests.passes.support import LAYER, Arrays, check, load, ops, random, reasons
from tests.plugins.cpu_library import needs_library

pytestmark = needs_library

LAST = ("ai.lepton.layer", "block.1", "")
OURS, THEIRS = "ai.lepton.cpu", "com.microsoft"
MORE = (
    ", do_rotary = 0, rotary_interleaved = 0, local_window_size = -1, softcap = 0.0, epsilon = 0.0"
)
TAIL = """a = MatMul (o, wo)
      n2, r = ai.lepton.cpu.SkipNormalization <epsilon = 1e-6, rms = 1> (x, a, gamma)
      m = MatMul (n2, w1)
      g = Gelu (m)
      d = MatMul (g, w2)
      y = Add (r, d)"""
HEAD = "n = ai.lepton.cpu.Normalization <epsilon = 1e-6, rms = 1> (h2, gamma)"
AFTER = ["MatMul", "SkipNormalization", "MatMul", "Gelu", "MatMul", "Add"]


def _decoder(
    domain: str = OURS, tail: str = TAIL, head: str = HEAD, extra: str = "", out: str = ""
) -> ir.Model:
    """Two layers that share a function, and a head."""
    more = MORE if domain == OURS else ""
    weights: Arrays = {
        "wq": random(32, 64, scale=0.2),
        "wo": random(32, 32, seed=1, scale=0.2),
        "w1": random(32, 48, seed=2, scale=0.2),
        "w2": random(48, 32, seed=3, scale=0.2),
        "w": random(32, 20, seed=4),
        "gamma": random(32, seed=5),
    }
    model = load(
        f"""main (float[b, s, 32] x, int64 count, float[b, 2, p, 8] pk, float[b, 2, p, 8] pv,
          int32[b] lengths, int32 total) => (y, k0, v0, k1, v1{out}) {{
      [l0] h1, k0, v0 = ai.lepton.layer.block (x, pk, pv, lengths, total, wq, wo, w1, w2, gamma)
      [l1] h2, k1, v1 = ai.lepton.layer.block (h1, pk, pv, lengths, total, wq, wo, w1, w2, gamma)
      {head}
      kept = ai.lepton.KeepLast (n, count)
      y = MatMul (kept, w)
      {extra}
    }}
    {LAYER[:-2]}, "ai.lepton.cpu" : 1]>
    block (x, pk, pv, lengths, total, wq, wo, w1, w2, gamma) => (y, ck, cv) {{
      n = ai.lepton.cpu.Normalization <epsilon = 1e-6, rms = 1> (x, gamma)
      qkv = MatMul (n, wq)
      o, ck, cv = {domain}.GroupQueryAttention <num_heads = 4, kv_num_heads = 2,
        scale = 0.3{more}> (qkv, , , pk, pv, lengths, total)
      {tail}
    }}""",
        weights,
    )
    for node in model.graph:
        if node.op_type == "block":  # export knows it
            node.outputs[0].shape = ir.Shape(["batch", "sequence", 32])
    return model


def _feeds(count: int, tokens: int, past: int = 6) -> dict[str, Any]:
    return {
        "x": random(1, tokens, 32, seed=6),
        "count": np.array(count, np.int64),
        "pk": random(1, 2, past + tokens, 8, seed=7),
        "pv": random(1, 2, past + tokens, 8, seed=8),
        "lengths": np.full(1, past + tokens - 1, np.int32),
        "total": np.array(past + tokens, np.int32),
    }


def _check(model: ir.Model, feeds: dict[str, Any]) -> LeptonPass:
    return check(LowerLastLayer(), model, feeds, CLOSE)


@pytest.mark.parametrize(("count", "tokens"), [(0, 5), (1, 5), (3, 5), (9, 5), (1, 1), (0, 1)])
def test_the_numbers_are_those_of_the_kept_positions(count: int, tokens: int) -> None:
    past = 6 if tokens == 1 else 0
    assert _check(_decoder(), _feeds(count, tokens, past)).fired == 1


def test_the_last_layer_gets_a_function_of_its_own() -> None:
    model = _decoder()
    LowerLastLayer()(model)
    assert ops(model) == ["block", "block.1", "Normalization", "MatMul"]
    before = ["Normalization", "MatMul", "GroupQueryAttention"]
    assert ops(model, "block") == [*before, *AFTER]
    kept = ["MatMul", "KeepLast", "SkipNormalization"]
    assert ops(model, "block.1") == [*before, *kept, *AFTER[2:]]
    attention = next(n for n in model.functions[LAST] if n.domain == OURS and n.inputs[3:])
    assert attention.inputs[11] is model.functions[LAST].inputs[-1]


def test_attention_of_onnxruntime_gives_all_and_is_cut_behind() -> None:
    model = _decoder(THEIRS)
    assert _check(model, _feeds(1, 5, 0)).fired == 1
    found = ops(model, "block.1")
    assert found.index("KeepLast") == found.index("GroupQueryAttention") + 1
    assert found.count("KeepLast") == 2


def test_shapes_say_that_positions_are_left_out() -> None:
    model = _decoder()
    LowerLastLayer()(model)
    first, last = (n.outputs[0].shape for n in model.graph if n.op_type.startswith("block"))
    assert (str(first), str(last)) == ("[batch,sequence,32]", "[batch,kept,32]")


PARALLEL = """m = MatMul (n, w1)
      g = Gelu (m)
      d = MatMul (g, w2)
      a = MatMul (o, wo)
      both = Add (a, d)
      y = Add (x, both)"""


def test_a_layer_with_its_halves_side_by_side() -> None:
    model = _decoder(tail=PARALLEL)
    assert _check(model, _feeds(2, 5, 0)).fired == 1
    assert ops(model, "block.1").count("KeepLast") == 2, "the residual, and what the norm made"


def _behind(nodes: str) -> str:
    """The layer with these behind it, which make ``y`` of ``z``."""
    return TAIL.replace("y = Add (r, d)", f"z = Add (r, d) {nodes}")


UNKNOWN = "it is not known to keep positions apart"
ALONG = "it works along the axis of the positions"


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"out": ", h2"}, "all positions of what it makes are read elsewhere, too"),
        (
            {"extra": "other = Neg (h2)", "out": ", other"},
            "all positions of what it makes are read elsewhere, too",
        ),
        ({"head": "n = Softmax <axis = 1> (h2)"}, ALONG),
        (
            {"head": "at = Constant <value_ints = [-2]> () n = ReduceMax <keepdims = 1> (h2, at)"},
            ALONG,
        ),
        (
            {"head": "h4 = Identity (h2) n = ReduceMean <keepdims = 1> (h4)"},
            "its sizes are not known",
        ),
        ({"tail": _behind("one = Constant <value_int = 1> () y = CumSum (z, one)")}, UNKNOWN),
        ({"tail": _behind("y = Concat <axis = 1> (z, z)")}, ALONG),
        (
            {"tail": _behind("i = Constant <value_ints = [1, 0]> () y = Gather <axis = 1> (z, i)")},
            ALONG,
        ),
        (
            {
                "tail": _behind(
                    "scale = Constant <value_floats = [0.1, 0.2]> () "
                    "zero = Constant <value = int8[2] {0, 0}> () "
                    "q = QuantizeLinear <axis = 1> (z, scale, zero) "
                    "y = DequantizeLinear <axis = 1> (q, scale, zero)"
                )
            },
            "it has more than one scale",
        ),
        (
            {
                "tail": _behind(
                    "f = Constant <value_ints = [0]> () e = Constant <value_ints = [9]> () "
                    "p = Constant <value_ints = [1]> () y = Slice (z, f, e, p)"
                )
            },
            ALONG,
        ),
        (
            {
                "tail": _behind(
                    "c = Constant <value = float[1, 5, 1] {1, 2, 3, 4, 5}> () y = Mul (z, c)"
                )
            },
            "a constant has positions of its own",
        ),
        (
            {
                "tail": _behind(
                    "c = Constant <value = float[5, 1] {1, 2, 3, 4, 5}> () y = Mul (z, c)"
                )
            },
            "its sizes are not known",
        ),
        (
            {
                "tail": _behind(
                    "t = Transpose <perm = [0, 2, 1]> (z) u = MatMul (z, t) y = MatMul (u, z)"
                )
            },
            "it multiplies by no single matrix",
        ),
    ],
)
def test_refuses_what_mixes_positions(how: dict[str, str], reason: str) -> None:
    model = _decoder(**how)
    last = LowerLastLayer()
    last(model)
    assert (last.fired, reasons(last)) == (0, [reason])
    assert ops(model).count("block") == 2
    assert ops(model).count("KeepLast") == 1


@pytest.mark.parametrize(
    "between",
    [
        "half = Cast <to = 10> (g) e = Cast <to = 1> (half)",
        "c = Constant <value = float {0.1}> () zero = Constant <value = int8 {0}> () "
        "q = QuantizeLinear (g, c, zero) e = DequantizeLinear (q, c, zero)",
        "c = Constant <value = float {0.1}> () over = Greater (g, c) low = Min (g, c) "
        "grown = Exp (low) e = Where (over, g, grown)",
        "two = Constant <value = float {2.0}> () e = Pow (g, two)",
        "along = Constant <value_ints = [-1]> () mean = ReduceMean (g, along) e = Sub (g, mean)",
        "c = Constant <value = float[1, 1, 1] {3.0}> () e = Mul (g, c)",
        "p = Constant <value_ints = [-1]> () f0 = Constant <value_ints = [0]> () "
        "m0 = Constant <value_ints = [24]> () m1 = Constant <value_ints = [48]> () "
        "l = Slice (g, f0, m0, p) r2 = Slice (g, m0, m1, p) e = Concat <axis = -1> (r2, l)",
        "parted = Constant <value_ints = [0, 0, 4, 12]> () h4 = Reshape (g, parted) "
        "t4 = Tanh (h4) joined = Constant <value_ints = [0, 0, 48]> () e = Reshape (t4, joined)",
        "left, right = Split <axis = -1, num_outputs = 2> (g) e = Concat <axis = -1> (right, left)",
        f"order = Constant <value_ints = {[*range(24, 48), *range(24)]}> () "
        "e = Gather <axis = -1> (g, order)",
    ],
)
def test_what_keeps_positions_apart(between: str) -> None:
    model = _decoder(tail=TAIL.replace("d = MatMul (g, w2)", f"{between} d = MatMul (e, w2)"))
    last = _check(model, _feeds(2, 5, 0))
    assert (last.fired, reasons(last)) == (1, [])
    assert ops(model, "block.1").count("KeepLast") == 1
    assert ops(model, "block.1").index("KeepLast") < ops(model, "block.1").index(
        "SkipNormalization"
    )


# As in front of a mixture of experts: tokens one behind the other, and groups of which two count.
ROWS = """a = MatMul (o, wo)
      n2, r = ai.lepton.cpu.SkipNormalization <epsilon = 1e-6, rms = 1> (x, a, gamma)
      flat = Constant <value_ints = [-1, 32]> ()
      t = Reshape (n2, flat)
      m = MatMul (t, w1)
      four = Constant <value_ints = [0, 4, 12]> ()
      groups = Reshape (m, four)
      two = Constant <value_ints = [2]> ()
      last = Constant <value_ints = [-1]> ()
      best, among = TopK (groups, two)
      sums = ReduceSum <keepdims = 0> (best, last)
      top, at = TopK (sums, two)
      batch = Shape <start = 0, end = 1> (x)
      sequence = Shape <start = 1, end = 2> (x)
      tokens = Mul (batch, sequence)
      c4 = Constant <value_ints = [4]> ()
      c12 = Constant <value_ints = [12]> ()
      c32 = Constant <value_ints = [32]> ()
      none = Constant <value = float {0.0}> ()
      one = Constant <value = float {1.0}> ()
      size = Concat <axis = 0> (tokens, c4)
      empty = Expand (none, size)
      like = Shape (at)
      ones = Expand (one, like)
      hit = ScatterElements <axis = 1> (empty, at, ones)
      column = Unsqueeze (hit, last)
      wide = Concat <axis = 0> (tokens, c4, c12)
      hits = Expand (column, wide)
      all = Constant <value_ints = [0, 48]> ()
      mask = Reshape (hits, all)
      chosen = Mul (m, mask)
      own = GatherElements <axis = 1> (m, at)
      share = Softmax <axis = -1> (own)
      shares = ReduceSum (share, last)
      weighed = Mul (chosen, shares)
      d = MatMul (weighed, w2)
      back = Concat <axis = 0> (batch, sequence, c32)
      e = Reshape (d, back)
      y = Add (r, e)"""
SIZES: dict[str, list[int | str]] = {
    "n2": ["batch", "sequence", 32],
    "t": ["tokens", 32],
    "m": ["tokens", 48],
    "groups": ["tokens", 4, 12],
    "empty": ["tokens", 4],
    "column": ["tokens", 4, 1],
    "hits": ["tokens", 4, 12],
    "mask": ["tokens", 48],
    "m2": ["tokens", 48],
    "d": ["tokens", 32],
    "e": ["batch", "sequence", 32],
}


def _of_rows(tail: str = ROWS) -> ir.Model:
    model = _decoder(tail=tail)
    for function in model.functions.values():
        for value in (out for node in function for out in node.outputs):
            if function.name == "block" and value.name in SIZES:  # export knows them
                value.shape = ir.Shape(SIZES[value.name])
    return model


@pytest.mark.parametrize(("count", "tokens"), [(0, 5), (1, 5), (3, 5), (9, 5), (1, 1)])
def test_tokens_one_behind_the_other(count: int, tokens: int) -> None:
    model = _of_rows()
    feeds = _feeds(count, tokens, 6 if tokens == 1 else 0)
    last = _check(model, feeds)
    assert (last.fired, reasons(last)) == (1, [])
    found = ops(model, "block.1")
    assert found.count("KeepLast") == 1
    assert found.index("KeepLast") < found.index("SkipNormalization")


def test_rows_of_a_batch() -> None:
    model = _of_rows()
    feeds = {**_feeds(2, 5, 0), "x": random(3, 5, 32, seed=9), "lengths": np.full(3, 4, np.int32)}
    feeds |= {name: random(3, 2, 5, 8, seed=seed) for seed, name in enumerate(("pk", "pv"))}
    assert _check(model, feeds).fired == 1


def test_rows_that_cannot_be_cut_leave_their_layer_whole() -> None:
    """What comes behind it is moved all the same."""
    tail = ROWS.replace("weighed = Mul", "m2 = CumSum (chosen, zero) weighed = Mul")
    tail = tail.replace("Mul (chosen, shares)", "Mul (m2, shares)")
    model = _of_rows("zero = Constant <value_int = 0> ()\n" + tail)
    last = _check(model, _feeds(2, 5, 0))
    assert (last.fired, reasons(last)) == (1, [UNKNOWN])
    assert [r.layers for r in last.refusals] == [("l1",)]
    assert ops(model, "block.1")[-3:] == ["KeepLast", "KeepLast", "Add"]


def test_a_product_of_two_activations_is_not_one_with_a_weight() -> None:
    model = _decoder(
        tail=TAIL.replace(
            "a = MatMul (o, wo)",
            "t = Transpose <perm = [0, 2, 1]> (x) p = MatMul (o, t) a = MatMul (p, x)",
        )
    )
    assert _check(model, _feeds(1, 5, 0)).fired == 1
    attention = next(n for n in model.functions[LAST] if n.domain == OURS and n.inputs[3:])
    assert len(attention.inputs) < 12


def test_a_model_without_layer_functions() -> None:
    model = _decoder()
    InlinePass(lambda function: function.domain == LAST[0])(model)
    assert _check(model, _feeds(1, 5, 0)).fired == 1
    kept = ["GroupQueryAttention", "MatMul", "KeepLast", "SkipNormalization"]
    assert ops(model)[-10:-6] == kept


def test_a_graph_without_a_head_is_left_alone() -> None:
    model = _decoder()
    (keep,) = (n for n in model.graph if n.op_type == "KeepLast")
    keep.outputs[0].replace_all_uses_with(keep.inputs[0])
    LowerLastLayer()(model)
    assert ops(model) == ["block", "block", "Normalization", "MatMul"]
