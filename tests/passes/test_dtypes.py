"""Element types of values."""

from __future__ import annotations

import onnx_ir as ir

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
