"""share-nodes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.cleanup.share_nodes import SMALL, ShareNodes
from lepton_passes.contract import SAME
from tests.passes.support import check, load, ops, random, run

FEEDS = {"x": random(2, 3)}


def test_computes_equal_nodes_once() -> None:
    model = load(
        """main (float[a, b] x) => (y) {
             r = Relu (x)
             s = Relu (x)
             t = Cast <to = 11> (x)
             u = Cast <to = 10> (x)
             v = Cast <to = 1> (t)
             w = Cast <to = 1> (u)
             p = Add (r, s)
             q = Add (v, w)
             y = Add (p, q)
           }"""
    )
    assert check(ShareNodes(), model, FEEDS, SAME).fired == 1
    assert ops(model) == ["Relu", "Cast", "Cast", "Cast", "Cast", "Add", "Add", "Add"]


def test_shares_small_weights_by_content_and_large_ones_by_object() -> None:
    text = "main (float[a, b] x) => (y) { p = Add (x, small) q = Add (p, same) y = Add (q, big) }"
    big = np.zeros((SMALL + 1, 1, 1), np.float32)
    weights = {"small": random(3), "same": random(3), "big": big}
    model = load(text, weights)
    assert check(ShareNodes(), model, FEEDS, SAME).fired == 1
    assert sorted(model.graph.initializers) == ["big", "small"]


def test_the_largest_of_the_small_weights() -> None:
    text = "main (float[a, b] x) => (y) { p = Add (x, w) y = Add (p, v) }"
    weights = {name: np.ones((SMALL, 1, 1), np.float32) for name in "wv"}
    assert check(ShareNodes(), load(text, weights), FEEDS, SAME).fired == 1


def test_equal_bytes_of_other_types_are_two() -> None:
    text = "main (float[a, b] x) => (y) { c = Cast <to = 1> (n) p = Add (x, f) y = Mul (p, c) }"
    weights = {"f": np.full(3, 1.0, np.float32), "n": np.full(3, 1.0, np.float32).view(np.int32)}
    assert check(ShareNodes(), load(text, weights), FEEDS, SAME).fired == 0


@pytest.mark.parametrize("place", ["inputs", "outputs"])
def test_what_callers_know_is_theirs(place: str) -> None:
    """An input with a default is another number tomorrow; an output keeps its name."""
    text = "main (float[a, b] x) => (y) { p = Add (x, w) y = Add (p, v) }"
    model = load(text, {name: random(3) for name in "wv"})
    getattr(model.graph, place).append(model.graph.initializers["v"])
    assert check(ShareNodes(), model, FEEDS, SAME).fired == 0


def test_texts_are_left_as_they_are() -> None:
    model = load(
        "main (float[a, b] x) => (y) { e = Equal (n, m) c = Cast <to = 1> (e) y = Mul (x, c) }"
    )
    values = {v.name: v for node in model.graph for v in node.inputs if v is not None}
    for name in "nm":
        values[name].const_value = ir.tensor(["a", "b", "c"], name=name)
        values[name].type, values[name].shape = ir.TensorType(ir.DataType.STRING), ir.Shape([3])
        model.graph.register_initializer(values[name])
    assert check(ShareNodes(), model, FEEDS, SAME).fired == 0


def test_what_a_call_says_of_a_node_is_not_known() -> None:
    """Both attributes are those of a function's caller, who may give two values."""
    model = load(
        """main (float[a, b] x) => (y) { y = ai.lepton.layer.Two <low = 1, high = 2> (x) }
           <domain: "ai.lepton.layer", opset_import: ["" : 24]> Two <low, high> (x) => (y) {
             p = HardSwish (x)
             l = LeakyRelu <alpha: float = @low> (p)
             h = LeakyRelu <alpha: float = @high> (p)
             y = Add (l, h)
           }"""
    )
    share = ShareNodes()
    share(model)
    assert share.fired == 0


def test_keeps_names_of_outputs() -> None:
    model = load("main (float[a, b] x) => (y, z) { y = Relu (x) z = Relu (x) }")
    assert check(ShareNodes(), model, FEEDS, SAME).fired == 0


def test_the_two_zeros_are_two() -> None:
    model = load(
        """main (float[a, b] x) => (y) {
             p = Constant <value_float = 0.0> ()
             n = Constant <value_float = -0.0> ()
             h = Mul (x, p)
             k = Mul (x, n)
             y = Concat <axis = 0> (h, k)
           }"""
    )
    before = np.signbit(run(model, FEEDS)[0])
    assert ShareNodes()(model).model is model
    np.testing.assert_array_equal(np.signbit(run(model, FEEDS)[0]), before)


def test_what_is_drawn_twice_is_two() -> None:
    """Also by functions that hold such ops, or call some that do."""
    text = """main (float[a, b] x) => (y) {{
                p = {op} (x)
                q = {op} (x)
                y = Sub (p, q)
              }}
              <domain: "my.dom", opset_import: ["" : 24]> Noise (x) => (y) {{
                y = RandomNormalLike (x)
              }}
              <domain: "my.dom", opset_import: ["" : 24, "my.dom" : 1]> Outer (x) => (y) {{
                y = my.dom.Noise (x)
              }}"""
    for op in ("Bernoulli", "RandomUniformLike", "my.dom.Noise", "my.dom.Outer"):
        model, share = load(text.format(op=op)), ShareNodes()
        share(model)
        assert share.fired == 0, op


@pytest.mark.parametrize("left_out", ["first", "second", "both"])
def test_what_gives_other_outputs_is_two(left_out: str) -> None:
    """Of an LSTM the states of all steps may be left out: then nothing can read them."""
    model = load(
        """main (float[s, b, 8] x) => (z) {
      first, one = LSTM <hidden_size = 8> (x, w, w)
      second, two = LSTM <hidden_size = 8> (x, w, w)
      read = ReduceSum (given)
      sum = Add (one, two)
      z = Add (sum, read)
    }""",
        {"w": random(1, 32, 8, scale=0.3)},
    )
    steps = {node.outputs[0].name: node.outputs[0] for node in model.graph}
    given = steps["second" if left_out == "first" else "first"]
    model.graph[2].replace_input_with(0, model.graph[0].inputs[0] if left_out == "both" else given)
    for name in ("first", "second"):
        if left_out in (name, "both"):
            steps[name].name = ""
    fired = check(ShareNodes(), model, {"x": random(4, 2, 8)}, SAME).fired
    assert fired == (left_out == "both")
