"""Element types of values."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from lepton_passes.dtypes import fill_types
from tests.passes.support import load


def test_what_a_branch_gives_keeps_its_type() -> None:
    """Its first input says which one is taken, and nothing of what comes out."""
    model = load(
        """main (bool c, float[n] x) => (float[n] y) {
          b = If (c) <
            then_branch = one () => (float[n] p) { p = Neg (x) },
            else_branch = two () => (float[n] q) { q = Abs (x) }
          >
          y = Identity (b)
        }"""
    )
    (branch,) = [node for node in model.graph if node.op_type == "If"]
    branch.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    fill_types(model)
    assert branch.outputs[0].dtype == ir.DataType.FLOAT
    assert model.graph.outputs[0].dtype == ir.DataType.FLOAT


def test_types_follow_casts_and_comparisons() -> None:
    model = load(
        "main (float[n] x) => (y) { h = Cast <to = 10> (x) m = Mul (h, h) y = Less (m, h) }"
    )
    fill_types(model)
    found = {node.op_type: node.outputs[0].dtype for node in model.graph}
    assert found == {
        "Cast": ir.DataType.FLOAT16,
        "Mul": ir.DataType.FLOAT16,
        "Less": ir.DataType.BOOL,
    }


@pytest.mark.parametrize("kept", ["float16", "int8", "float"])
def test_what_comes_of_a_cache_has_its_type(kept: str) -> None:
    model = load(
        f"""main (float[b, s, 32] x, {kept}[b, 2, p, 8] past, int32[b] lengths, int32 total)
          => (y, key, value) {{
      y, key, value = ai.lepton.cpu.GroupQueryAttention <num_heads = 4, kv_num_heads = 2>
        (x, , , past, past, lengths, total)
    }}"""
    )
    fill_types(model)
    types = {"float16": "FLOAT16", "int8": "INT8", "float": "FLOAT"}
    found = [value.dtype.name for value in model.graph.outputs if value.dtype is not None]
    assert found == ["FLOAT", types[kept], types[kept]]


def test_branches_say_what_they_give() -> None:
    model = load(
        """main (bool c, int64 n, float[n] x) => (y, z) {
          y = If (c) <
            then_branch = one () => (a) { a = Cast <to = 10> (x) },
            else_branch = two () => (b) { b = Cast <to = 10> (x) }>
          z, all = Loop (n, c, x) <
            body = again (int64 i, bool on, float[n] s) => (still, t, kept) {
              still = Identity (on)
              t = Neg (s)
              kept = ArgMax (s)
            }>
        }"""
    )
    fill_types(model)
    found = [value.dtype for node in model.graph for value in node.outputs]
    assert found == [ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.INT64]


def test_a_function_may_be_called_with_several_types() -> None:
    model = load(
        """main (float[n] x, int64[n] i) => (y, z, p, q) {
          y, p = own.both (x)
          z, q = own.both (i)
        }
        <domain: "own", opset_import: ["" : 24]>
        both (x) => (y, p) {
          y = Identity (x)
          p = ArgMax (x)
        }"""
    )
    fill_types(model)
    types = [value.dtype for value in model.graph.outputs]
    assert types == [ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.INT64, ir.DataType.INT64]


def test_what_is_random_says_its_own_type() -> None:
    model = load(
        """main (float16[n] x) => (a, b, c) {
          a = RandomNormalLike (x)
          b = RandomNormalLike <dtype = 1> (x)
          c = RandomUniform <shape = [2]> ()
        }"""
    )
    fill_types(model)
    found = [node.outputs[0].dtype for node in model.graph]
    assert found == [ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.FLOAT]


def test_a_sequence_stays_one() -> None:
    model = load("main (float[n] x) => (y) { s = SequenceConstruct (x, x) y = SequenceLength (s) }")
    made = model.graph[0].outputs[0]
    made.type = ir.SequenceType(ir.TensorType(ir.DataType.FLOAT))
    fill_types(model)
    assert isinstance(made.type, ir.SequenceType)
