"""lower-last-layer, where the last layers read the cache of an earlier one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import InlinePass

from lepton_passes.contract import CLOSE, LeptonPass
from lepton_passes.lowering.last_layer import LowerLastLayer
from tests.passes.support import LAYER, check, load, ops, random, reasons
from tests.plugins.cpu_library import needs_library

pytestmark = needs_library

ATTENTION = """GroupQueryAttention <num_heads = 4, kv_num_heads = 2, scale = 0.3, do_rotary = 0,
        rotary_interleaved = 0, local_window_size = -1, softcap = 0.0, epsilon = 0.0>"""
# Each layer takes a piece of what is known of a token besides (Gemma 4).
SHARING = """n = ai.lepton.cpu.Normalization <epsilon = 1e-6, rms = 1> (x, gamma)
      q = MatMul (n, wo)
      o = ai.lepton.cpu.{attention} (q, none, none, keys, values, lengths, total)
      a = MatMul (o, wo)
      r = Add (x, a)
      y = Mul (r, own)"""


def _decoder(
    sharing: str = SHARING,
    attention: str = ATTENTION,
    out: str = "",
    length: str = "s",
    angles: bool = False,
) -> ir.Model:
    """A layer with a cache, three that read it with other queries, and a head."""
    given = ", cos, sin, gamma8" if angles else ""
    table = "float[b, s, 4] cos, float[b, s, 4] sin, " if angles else ""
    model = load(
        f"""main (float[b, {length}, 32] x, float[b, s, 4, 32] pieces, {table}int64 count,
          float[b, 2, p, 8] pk, float[b, 2, p, 8] pv, int32[b] lengths, int32 total)
          => (y, k0, v0{out}) {{
      batch = Shape <start = 0, end = 1> (x)
      rest = Constant <value_ints = [0, 16]> ()
      nothing = Concat <axis = 0> (batch, rest)
      none = ConstantOfShape (nothing)
      zero = Constant <value_int = 0> ()
      one = Constant <value_int = 1> ()
      two = Constant <value_int = 2> ()
      three = Constant <value_int = 3> ()
      i0 = Gather <axis = 2> (pieces, zero)
      i1 = Gather <axis = 2> (pieces, one)
      i2 = Gather <axis = 2> (pieces, two)
      i3 = Gather <axis = 2> (pieces, three)
      [l0] h0, k0, v0 = ai.lepton.layer.block (x, i0, pk, pv, lengths, total, wq, wo, gamma)
      [l1] h1 = ai.lepton.layer.sharing (h0, i1, k0, v0, none, lengths, total, wo, gamma{given})
      [l2] h2 = ai.lepton.layer.sharing (h1, i2, k0, v0, none, lengths, total, wo, gamma{given})
      [l3] h3 = ai.lepton.layer.sharing (h2, i3, k0, v0, none, lengths, total, wo, gamma{given})
      n = ai.lepton.cpu.Normalization <epsilon = 1e-6, rms = 1> (h3, gamma)
      kept = ai.lepton.KeepLast (n, count)
      y = MatMul (kept, w)
    }}
    {LAYER[:-2]}, "ai.lepton.cpu" : 1]>
    block (x, own, pk, pv, lengths, total, wq, wo, gamma) => (y, ck, cv) {{
      n = ai.lepton.cpu.Normalization <epsilon = 1e-6, rms = 1> (x, gamma)
      qkv = MatMul (n, wq)
      o, ck, cv = ai.lepton.cpu.{ATTENTION} (qkv, , , pk, pv, lengths, total)
      a = MatMul (o, wo)
      r = Add (x, a)
      y = Mul (r, own)
    }}
    {LAYER[:-2]}, "ai.lepton.cpu" : 1]>
    sharing (x, own, keys, values, none, lengths, total, wo, gamma{given}) => (y) {{
      {sharing.format(attention=attention)}
    }}""",
        {
            "wq": random(32, 64, scale=0.2),
            "wo": random(32, 32, seed=1, scale=0.2),
            "w": random(32, 20, seed=4),
            "gamma": random(32, seed=5),
            **({"gamma8": random(8, seed=6)} if angles else {}),
        },
    )
    for node in model.graph:  # export knows these
        if node.op_type in ("block", "sharing", "Gather", "Normalization"):
            node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
            node.outputs[0].shape = ir.Shape(["b", "s", 32])
    return model


def _feeds(count: int, tokens: int, past: int = 0, rows: int = 1) -> dict[str, Any]:
    return {
        "x": random(rows, tokens, 32, seed=6),
        "pieces": random(rows, tokens, 4, 32, seed=9),
        "count": np.array(count, np.int64),
        "pk": random(rows, 2, past + tokens, 8, seed=7),
        "pv": random(rows, 2, past + tokens, 8, seed=8),
        "lengths": np.full(rows, past + tokens - 1, np.int32),
        "total": np.array(past + tokens, np.int32),
    }


def _check(model: ir.Model, feeds: dict[str, Any]) -> LeptonPass:
    return check(LowerLastLayer(), model, feeds, CLOSE)


def _keeps(model: ir.Model) -> list[str | None]:
    """What is cut in the main graph."""
    return [n.inputs[0].name for n in model.graph if n.op_type == "KeepLast" and n.inputs[0]]


@pytest.mark.parametrize("past", [0, 6])
@pytest.mark.parametrize(("count", "tokens"), [(0, 5), (1, 5), (3, 5), (9, 5), (1, 1)])
def test_the_numbers_are_those_of_the_kept_positions(count: int, tokens: int, past: int) -> None:
    last = _check(_decoder(), _feeds(count, tokens, past))
    assert (last.fired, reasons(last)) == (4, [])


@pytest.mark.parametrize("count", [1, 4])
def test_rows_of_a_prompt_that_are_short(count: int) -> None:
    feeds = _feeds(count, 7, rows=3)
    feeds["lengths"] = np.array([6, 4, 5], np.int32)
    assert _check(_decoder(), feeds).fired == 4


def test_layers_that_share_are_cut_in_front_and_stay_one_function() -> None:
    model = _decoder()
    LowerLastLayer()(model)
    assert _keeps(model) == ["pieces"]
    found = ops(model)
    assert [each for each in found if each in ("block", "sharing", "sharing.1")] == [
        "block",
        *["sharing"] * 3,
    ]
    assert "KeepLast" not in ops(model, "sharing")
    inside = ops(model, "block")
    assert inside.index("KeepLast") == inside.index("GroupQueryAttention") + 2, "the residual"
    assert inside.count("KeepLast") == 1
    shapes = [str(n.outputs[0].shape) for n in model.graph if n.name in ("l0", "l1", "l2", "l3")]
    assert shapes == ["[b,kept,32]"] * 4


def test_attention_is_told_of_how_many_tokens_it_has_the_last() -> None:
    model = _decoder()
    LowerLastLayer()(model)
    (function,) = (f for f in model.functions.values() if f.name == "sharing")
    (attention,) = (n for n in function if n.op_type == "GroupQueryAttention")
    assert attention.inputs[13] is function.inputs[-1]
    (call, *_) = (n for n in model.graph if n.op_type == "sharing")
    made = call.inputs[-1]
    assert made is not None
    (node,) = (n for n in model.graph if made in n.outputs)
    assert (node.op_type, [v.name for v in node.inputs if v is not None]) == ("Shape", ["x"])


@pytest.mark.parametrize(("read", "cut"), [("h0", 3), ("h1", 2), ("h2", 1)])
def test_goes_on_to_where_something_else_reads_all_positions(read: str, cut: int) -> None:
    model = _decoder(out=f", {read}")
    last = _check(model, _feeds(1, 5))
    assert last.fired == cut
    assert reasons(last) == ["all positions of what it makes are read elsewhere, too"]
    assert _keeps(model) == ["pieces", read]
    assert ops(model).count("sharing") + ops(model).count("sharing.1") == 3


def test_attention_of_onnxruntime_takes_all_queries() -> None:
    theirs = ATTENTION.replace(", epsilon = 0.0", "")
    model = _decoder(SHARING.replace("ai.lepton.cpu.{", "com.microsoft.{"), theirs)
    last = LowerLastLayer()
    last(model)
    assert (last.fired, reasons(last)) == (1, [])
    assert ops(model).count("sharing") == 2
    assert ops(model, "sharing.1").count("KeepLast") == 2, "what it gives, and the residual"
    assert _keeps(model) == ["pieces"]


def test_refuses_where_no_input_is_as_long() -> None:
    model = _decoder(length="other")
    for value in model.graph.inputs:
        if value.name == "pieces":
            value.shape = None
    last = LowerLastLayer()
    last(model)
    assert (last.fired, reasons(last)) == (
        0,
        ["no input of the model says how many tokens there are"],
    )


def test_a_model_without_layer_functions() -> None:
    model = _decoder()
    InlinePass(lambda function: function.domain == "ai.lepton.layer")(model)
    last = _check(model, _feeds(1, 5))
    assert last.fired == 1
    assert ops(model).count("KeepLast") == 5, "pieces of each layer, and the first residual"


APART = """parted = Constant <value_ints = [0, 0, 4, 8]> ()
      q4 = Reshape (q, parted)
      qn = ai.lepton.cpu.Normalization <epsilon = 1e-6, rms = 1> (q4, gamma8)
      joined = Constant <value_ints = [0, 0, 32]> ()
      q3 = Reshape (qn, joined)
      turned = RotaryEmbedding <num_heads = 4> (q3, cos, sin)"""


def test_norms_and_angles_outside_of_attention_are_for_kept_positions_too() -> None:
    """As where angles are no multiple of 8: those of all positions are cut once for all layers."""
    sharing = SHARING.replace("o = ai.lepton.cpu.{attention} (q,", "{apart}").replace(
        "{apart}", APART.replace("\n", " ") + " o = ai.lepton.cpu.{attention} (turned,"
    )
    model = _decoder(sharing, angles=True)
    last = _check(model, _feeds(2, 5) | {name: random(1, 5, 4) for name in ("cos", "sin")})
    assert (last.fired, reasons(last)) == (4, [])
    assert _keeps(model) == ["pieces", "cos", "sin"]
    assert "KeepLast" not in ops(model, "sharing")
