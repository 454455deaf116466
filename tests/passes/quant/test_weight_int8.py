"""weight-int8."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_passes.contract import Tolerance
from lepton_passes.quant.weight_int8 import WeightInt8
from tests.passes.experts import EXPERTS, Settings, experts
from tests.passes.quant.quantizing import FEEDS, ROWS, model
from tests.passes.support import check, load, ops, random, reasons

CLOSE8 = Tolerance(error=0.02, cosine=0.9995)


def test_tied_table_and_layers() -> None:
    graph, _ = model()
    assert check(WeightInt8(), graph, FEEDS, CLOSE8).fired == 3
    assert ops(graph) == ["DequantizeLinear", "Gather", "block", "block", "Transpose", "MatMul"]
    assert ops(graph, "block") == ["DequantizeLinear", "Transpose", "MatMul"]
    shapes = {n: v.const_value.shape.numpy() for n, v in graph.graph.initializers.items()}
    assert shapes["table_q"] == (ROWS, 64)
    assert shapes["table_scale"] == (ROWS,)
    assert sorted(shapes) == [
        *("layers0_up_weight_q", "layers0_up_weight_scale"),
        *("layers1_up_weight_q", "layers1_up_weight_scale"),
        *("table_q", "table_scale"),
    ]


def test_rules_by_layer_clone_the_function() -> None:
    graph, _ = model()
    done = check(
        WeightInt8(lambda name, _: (8, None) if name == "layers1_up_weight" else None),
        graph,
        FEEDS,
        CLOSE8,
    )
    assert done.fired == 1
    assert ops(graph, "block") == ["Transpose", "MatMul"]
    assert ops(graph, "block.1") == ["DequantizeLinear", "Transpose", "MatMul"]


def test_the_choice_sees_tables() -> None:
    seen = {}

    def choose(name: str, embedding: bool) -> None:
        seen[name] = embedding

    graph, _ = model()
    assert check(WeightInt8(choose), graph, FEEDS, CLOSE8).fired == 0
    assert seen == {"table": True, "layers0_up_weight": False, "layers1_up_weight": False}


def test_refuses_a_weight_that_is_read_otherwise() -> None:
    graph, _ = model("logits = Relu (table)")
    done = check(WeightInt8(), graph, FEEDS, CLOSE8)
    assert reasons(done) == ["the weight is also read by Relu"]
    assert done.fired == 2


def test_refuses_a_small_table() -> None:
    graph = load("main (int64[b] ids) => (y) { y = Gather (t, ids) }", {"t": random(9, 32)})
    done = WeightInt8()
    done(graph)
    assert reasons(done) == ["a table of 9 rows is not worth it"]


@pytest.mark.parametrize(("blocked", "kept"), [(True, 40), (False, 0)])
def test_columns_that_a_target_has_no_blocks_for(blocked: bool, kept: int) -> None:
    """Rows of a table are looked up by kernels of another kind."""
    text = """main (int64[b] ids, float[b, 40] x, float[b, 48] y) => (r, p, q) {
      r = Gather (table, ids)
      t = Transpose <perm = [1, 0]> (odd)
      p = MatMul (x, t)
      u = Transpose <perm = [1, 0]> (even)
      q = MatMul (y, u)
    }"""
    weights = {"table": random(4096, 40), "odd": random(8, 40), "even": random(8, 48)}
    graph = load(text, weights)
    feeds = {"ids": FEEDS["ids"][0][:2], "x": random(2, 40, seed=1), "y": random(2, 48, seed=2)}
    done = check(WeightInt8(blocked=blocked), graph, feeds, CLOSE8)
    assert reasons(done) == [f"{kept} columns are no multiple of 16"] * bool(kept)
    assert done.fired == 3 - len(done.refusals)
    assert ("odd" in graph.graph.initializers) == blocked


@pytest.mark.parametrize(("multiple", "kept"), [(1, 0), (8, 0), (16, 1)])
def test_columns_that_a_decoder_has_no_exact_kernel_for(multiple: int, kept: int) -> None:
    text = """main (float[b, s, 40] x, float[b, 2, t, 8] past) => (y, present) {
      w = Transpose <perm = [1, 0]> (weight)
      y = MatMul (x, w)
      present = Identity (past)
    }"""
    graph = load(text, {"weight": random(8, 40)})
    graph.graph.inputs[1].name = "past_key_values.0.key"
    done = WeightInt8(multiple=multiple)
    done(graph)
    assert (done.fired, len(done.refusals)) == (1 - kept, kept)
    assert reasons(done) == ["40 columns are no multiple of 16"] * kept


def test_tables_of_which_some_ids_are_others() -> None:
    """As where words stand in the place of pictures, for which there are no rows."""
    graph = load(
        """main (int64[b, s] ids) => (y, logits) {
      token = Constant <value_int = 7> ()
      pad = Constant <value_int = 0> ()
      here = Equal (ids, token)
      words = Where (here, pad, ids)
      y = Gather (t, words)
      turned = Transpose <perm = [1, 0]> (t)
      logits = MatMul (y, turned)
    }""",
        {"t": random(4096, 32)},
    )
    done = check(WeightInt8(), graph, {"ids": FEEDS["ids"]}, CLOSE8)
    assert (done.fired, done.refusals) == (1, [])
    assert ops(graph) == ["Equal", "Where", "DequantizeLinear", "Gather", "Transpose", "MatMul"]


def test_leaves_tables_by_position() -> None:
    graph = load(
        """main (int64[b] ids) => (y, z) {
      n = Neg (ids)
      p = Neg (n)
      y = Gather (t, p)
      zero = Constant <value_int = 0> ()
      negative = Less (ids, zero)
      q = Where (negative, zero, p)
      z = Gather (t, q)
    }""",
        {"t": random(4096, 32)},
    )
    done = check(WeightInt8(), graph, {"ids": FEEDS["ids"][0]}, CLOSE8)
    assert (done.fired, done.refusals) == (0, [])


@pytest.mark.parametrize(
    ("columns", "longest", "block"), [(96, 64, 32), (256, 64, 64), (256, 128, 128)]
)
def test_a_decoder_has_scales_by_block(columns: int, longest: int, block: int) -> None:
    text = f"""main (float[b, s, {columns}] x, float[b, h, p, d] pkv) => (y, z) {{
      t = Transpose <perm = [1, 0]> (w)
      y = MatMul (x, t)
      z = Identity (pkv)
    }}"""
    graph = load(text, {"w": random(8, columns)})
    graph.graph.inputs[1].name = "past_key_values.0.key"
    feeds = {"x": random(1, 2, columns), "past_key_values.0.key": random(1, 1, 1, 1)}
    assert check(WeightInt8(longest=longest), graph, feeds, CLOSE8).fired == 1
    node = next(n for n in graph.graph if n.op_type == "DequantizeLinear")
    assert node.attributes["block_size"].as_int() == block
    assert graph.graph.initializers["w_scale"].shape == (8, columns // block)


def test_experts_are_rounded_and_what_chooses_them_is_not() -> None:
    """The second layer has as many rows, and chooses nothing."""
    text = f"""main (float[t, 32] x) => (y, z) {{
      t = Transpose <perm = [1, 0]> (gate)
      scores = MatMul (x, t)
      shares = Softmax <axis = -1> (scores)
      two = Constant <value_ints = [2]> ()
      best, which = TopK (shares, two)
      y = ai.lepton.Experts <experts = {EXPERTS}, chosen = 2, alpha = 1.0, beta = 0.0,
        limit = 0.0, interleaved = 0, activation = "swish"> (x, which, best, gu, dn)
      u = Transpose <perm = [1, 0]> (other)
      z = MatMul (x, u)
    }}"""
    _, weights = experts(Settings())
    more = {"gate": random(EXPERTS, 32), "other": random(EXPERTS, 32, seed=1)}
    graph = load(text, {**weights, **more})
    done = check(WeightInt8(), graph, {"x": random(5, 32, seed=2)}, CLOSE8)
    assert (done.fired, reasons(done)) == (3, ["experts are chosen by it"])
    rounded = {n.removesuffix("_q") for n in graph.graph.initializers if n.endswith("_q")}
    assert rounded == {"gu", "dn", "other"}


def test_refuses_a_weight_without_numbers() -> None:
    """As a file may have: kernels of layers take no rows for an error."""
    graph = load(
        """main (float[n, 8] x) => (y, z) {
      t = Transpose <perm = [1, 0]> (none)
      y = MatMul (x, t)
      u = Transpose <perm = [1, 0]> (some)
      z = MatMul (x, u)
    }""",
        {"none": np.zeros((0, 8), np.float32), "some": random(8, 8)},
    )
    weights = WeightInt8()
    weights(graph)
    assert (weights.fired, reasons(weights)) == (1, ["it has no numbers"])
