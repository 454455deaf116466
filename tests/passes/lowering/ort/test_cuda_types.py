"""lower-cuda-types."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.lowering.ort.cuda_types import LowerCudaTypes
from lepton_passes.lowering.ort.legal_ort_cuda import LegalOrtCuda
from lepton_passes.lowering.ort.opset import LowerOpset
from tests.passes.support import load, ops, random, reasons, run

TOP = """main (float[b, 8] x) => (y, n) {
  k = Constant <value_ints = [3]> ()
  h = Cast <to = 16> (x)
  top, n = TopK <axis = -1> (h, k)
  y = Cast <to = 1> (top)
}"""


def test_choices_are_in_fp32() -> None:
    model, x = load(TOP), random(4, 8)
    done = LowerCudaTypes()
    done(model)
    assert (done.fired, reasons(done)) == (1, [])
    halves = x.astype(ir.DataType.BFLOAT16.numpy()).astype(np.float32)
    values, places = run(model, {"x": x})  # the CPU has no TopK of bfloat16 either
    np.testing.assert_array_equal(values, -np.sort(-halves)[:, :3])
    np.testing.assert_array_equal(places, np.argsort(-halves, kind="stable")[:, :3])
    assert [op for op in ops(model) if op != "Constant"] == ["Cast", "Cast", "TopK", "Cast", "Cast"]
    (top,) = [node for node in model.graph if node.op_type == "TopK"]
    assert top.attributes.get_int("axis") == -1
    LowerOpset()(model)
    legal = LegalOrtCuda()
    legal(model)
    assert reasons(legal) == []


def test_comparisons_give_what_they_gave() -> None:
    model = load("""main (bfloat16[b, 8] x, bfloat16[b, 8] z) => (y) { y = Greater (x, z) }""")
    done = LowerCudaTypes()
    done(model)
    assert done.fired == 1
    assert ops(model) == ["Cast", "Cast", "Greater"]
    assert model.graph.outputs[0].name == "y"


@pytest.mark.parametrize(
    "text",
    [
        "main (float16[b, 8] x) => (y) { y = Ceil (x) }",  # has a kernel
        "main (float[b, 8] x) => (y) { y = Ceil (x) }",
        "main (bfloat16[b, 8] x) => (y) { y = Hardmax (x) }",  # has none at all
        "main (bfloat16[b, 8] x) => (y) { y = com.microsoft.QuickGelu (x) }",
        "main (bfloat16[b, 8] x) => (y) { y = Cast <to = 1> (x) }",
    ],
)
def test_leaves_the_rest(text: str) -> None:
    model = load(text)
    before = ops(model)
    done = LowerCudaTypes()
    done(model)
    assert (done.fired, ops(model)) == (0, before)


def test_types_are_those_of_before() -> None:
    model = load("main (bfloat16[b, 8] x) => (y) { y = Ceil (x) }")
    LowerCudaTypes()(model)
    assert model.graph.outputs[0].dtype == ir.DataType.BFLOAT16
    assert np.dtype(model.graph.outputs[0].dtype.numpy()).itemsize == 2
