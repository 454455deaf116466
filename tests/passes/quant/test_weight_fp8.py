"""weight-fp8."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
from hypothesis import given
from hypothesis import strategies as st

from lepton_passes.contract import Tolerance
from lepton_passes.quant.weight_fp8 import WeightFp8, quantize_fp8
from tests.passes.quant.quantizing import FEEDS, ROWS, model
from tests.passes.support import check, ops, random, reasons

NEAR = Tolerance(error=0.05, cosine=0.998)


def test_layers_but_no_tables() -> None:
    graph, _ = model()
    assert check(WeightFp8(), graph, FEEDS, NEAR).fired == 2
    assert ops(graph) == ["Gather", "block", "block", "Transpose", "MatMul"]
    assert ops(graph, "block") == ["DequantizeLinear", "Transpose", "MatMul"]
    stored = graph.graph.initializers["layers0_up_weight_q"].const_value
    assert (stored.dtype, stored.nbytes) == (ir.DataType.FLOAT8E4M3FN, 64 * 64)
    assert graph.graph.initializers["table"].const_value.shape.numpy() == (ROWS, 64)


def test_a_choice_by_name() -> None:
    graph, _ = model()
    done = check(
        WeightFp8(lambda name, _: (8, None) if name == "layers1_up_weight" else None),
        graph,
        FEEDS,
        NEAR,
    )
    assert done.fired == 1
    assert ops(graph, "block") == ["Transpose", "MatMul"]


def test_refuses_a_weight_that_is_read_otherwise() -> None:
    graph, _ = model("logits = Relu (layers1_up_weight)")
    done = WeightFp8(lambda *_: (8, None))
    done(graph)
    assert reasons(done) == []
    graph, _ = model("logits = Relu (table)")
    done = WeightFp8(lambda *_: (8, None))
    done(graph)
    assert reasons(done) == ["the weight is also read by Relu"]


def test_the_largest_of_a_row_is_exact_and_the_rest_within_a_step() -> None:
    w = random(16, 64)
    q, scale = quantize_fp8(w)
    back = q.astype(np.float32) * scale[:, None]
    assert np.abs(q.astype(np.float32)).max(axis=1).tolist() == [448.0] * 16
    # Three bits of mantissa: half a step is a sixteenth, below the normal numbers less.
    assert (np.abs(back - w) <= np.abs(w) / 16 + scale[:, None] * 2.0**-10).all()


@given(st.floats(min_value=1e-20, max_value=1e20), st.integers(0, 1000))
def test_no_row_becomes_a_number_that_is_none(size: float, seed: int) -> None:
    w = random(4, 8, seed=seed, scale=size)
    w[0] = 0
    q, scale = quantize_fp8(w)
    assert q.dtype == ml_dtypes.float8_e4m3fn
    assert np.isfinite(q.astype(np.float32)).all()
    assert (scale > 0).all()
    assert not q[0].astype(np.float32).any()
