"""lower-opset."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lepton_passes.contract import SAME
from lepton_passes.dtypes import fill_types
from lepton_passes.lowering.ort.opset import OPSET, LowerOpset
from tests.passes.support import LAYER, check, load, ops, random, reasons

TEXT = f"""main (float[b, s, 8] x) => (y) {{
  turned = Transpose <perm = [0, 2, 1]> (x)
  h = ai.lepton.layer.block (turned)
  y = Cast <to = 1> (h)
}}
{LAYER}
block (x) => (y) {{
  shape = Constant <value_ints = [0, -1]> ()
  y = Reshape (x, shape)
}}"""


def _opsets(model: ir.Model) -> set[int]:
    graphs = [model.graph, *(f.graph for f in model.functions.values())]
    return {g.opset_imports[""] for g in graphs}


def test_every_body_has_the_older_opset_and_the_same_numbers() -> None:
    model = load(TEXT)
    done = check(LowerOpset(), model, {"x": random(2, 3, 8)}, SAME)
    assert (done.fired, _opsets(model)) == (1, {OPSET})
    assert ops(model) == ["Transpose", "block", "Cast"]


def test_what_is_old_enough_stays() -> None:
    model = load(TEXT)
    LowerOpset()(model)
    again = LowerOpset()
    again(model)
    assert again.fired == 0


POOL = """main (float[b, 2, 8, 8] x) => (y) {
  p = MaxPool <kernel_shape = [2, 2]> (x)
  y = Sigmoid (p)
}"""


def test_an_op_with_a_kernel_at_an_older_opset_takes_all_there() -> None:
    model = load(POOL)
    done = check(LowerOpset(), model, {"x": random(1, 2, 8, 8)}, SAME)
    assert (done.fired, _opsets(model)) == (1, {21})
    assert ops(model) == ["MaxPool", "Sigmoid"]


def test_what_came_later_keeps_all_at_the_newer_one() -> None:
    text = POOL.replace("y = Sigmoid (p)", "y = RMSNormalization (p, s)")
    model = load(text, {"s": random(7)})
    check(LowerOpset(), model, {"x": random(1, 2, 8, 8)}, SAME)
    assert _opsets(model) == {OPSET}


def test_halves_that_came_later_keep_all_at_the_newer_one() -> None:
    nodes = "c = Cast <to = 16> (p)\n  y = AveragePool <kernel_shape = [2, 2]> (c)"
    model = load(POOL.replace("y = Sigmoid (p)", nodes))
    fill_types(model)
    done = LowerOpset()
    done(model)
    assert (done.refusals, _opsets(model)) == ([], {OPSET})


FUNCTION = f"""{POOL.replace("Sigmoid", "own.later")}
<domain: "own", opset_import: ["" : 24]>
later (x) => (y) {{
  one = Constant <value_floats = [1.0]> ()
  y = RMSNormalization (x, one)
}}"""


def test_what_came_later_may_stand_in_a_function() -> None:
    model = load(FUNCTION)
    LowerOpset()(model)
    assert _opsets(model) == {OPSET}


def test_refuses_an_op_that_came_later() -> None:
    model = load("main (float[b, s, 8] x) => (y) { y = Swish (x) }")
    done = check(LowerOpset(), model, {"x": np.ones((1, 1, 8), np.float32)}, SAME)
    assert reasons(done) == ["the op is newer than opset 23"]
    assert (done.fired, _opsets(model)) == (0, {24})


def test_refuses_an_attribute_that_came_later() -> None:
    model = load('main (float[b, s, 8] x) => (y) { y = Cast <to = 1, round_mode = "up"> (x) }')
    done = LowerOpset()
    done(model)
    assert reasons(done) == ["its attribute round_mode is newer than opset 23"]
    assert _opsets(model) == {24}


def test_refuses_an_input_that_came_later() -> None:
    text = """main (float[b, 2, s, 8] x, int64[b] n) => (y) {
      y = Attention (x, x, x, , , , n)
    }"""
    done = LowerOpset()
    done(load(text))
    assert reasons(done) == ["it has more inputs than in opset 23"]
