"""lower-embedding."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.contract import SAME
from lepton_passes.lowering.ort.embedding import LowerEmbedding
from lepton_passes.lowering.ort.linear import LowerLinear
from lepton_passes.lowering.ort.packing import STORAGE
from lepton_passes.match import made_by
from lepton_passes.quant.weight_fp8 import WeightFp8
from lepton_passes.quant.weight_int4 import WeightInt4
from lepton_passes.quant.weight_int8 import WeightInt8
from tests.passes.support import check, load, ops, random, reasons

FEEDS = {"ids": np.array([[1, 2, 4095]])}
FORMATS = [WeightInt8, WeightInt4]


def _model(width: int = 64) -> ir.Model:
    text = f"""main (int64[b, s] ids) => (float[b, s, {width}] h, y) {{
      h = Gather (w, ids)
      t = Transpose <perm = [1, 0]> (w)
      y = MatMul (h, t)
    }}"""
    return load(text, {"w": random(4096, width)})


@pytest.mark.parametrize("quantize", FORMATS)
def test_rows_are_looked_up_quantized(quantize: type[WeightInt8 | WeightInt4]) -> None:
    model = _model()
    quantize()(model)
    assert check(LowerEmbedding(), model, FEEDS, SAME).fired == 1
    assert "GatherBlockQuantized" in ops(model)
    assert "Gather" not in ops(model)


@pytest.mark.parametrize("quantize", FORMATS)
def test_a_tied_head_shares_the_bytes(quantize: type[WeightInt8 | WeightInt4]) -> None:
    model = _model()
    quantize()(model)
    LowerLinear()(model)
    LowerEmbedding()(model)
    assert ops(model) == ["GatherBlockQuantized", "MatMulNBits"]
    stored = [node.inputs[i].const_value for node, i in zip(model.graph, (0, 1), strict=True)]
    assert stored[0].metadata_props[STORAGE] == stored[1].metadata_props[STORAGE]
    assert stored[0].tobytes() == stored[1].tobytes()


def _with_zeros(group: int) -> ir.Model:
    text = f"""main (int64[b, s] ids) => (float[b, s, 96] h, y) {{
      w = DequantizeLinear <axis = 1, block_size = {group}> (w_q, w_scale, w_zero)
      h = Gather (w, ids)
      t = Transpose <perm = [1, 0]> (w)
      y = MatMul (h, t)
    }}"""
    numbers, grid = np.random.default_rng(0), (4096, 96 // group)
    weights = {
        "w_q": numbers.integers(0, 16, (4096, 96)).astype(ml_dtypes.uint4),
        "w_scale": numbers.uniform(0.01, 0.1, grid).astype(np.float32),
        "w_zero": numbers.integers(0, 16, grid).astype(ml_dtypes.uint4),
    }
    return load(text, weights)


def test_zero_points_go_along() -> None:
    model = _with_zeros(32)
    assert check(LowerEmbedding(), model, FEEDS, SAME).fired == 1
    assert "GatherBlockQuantized" in ops(model)
    LowerLinear()(model)
    table, head = model.graph
    assert ops(model) == ["GatherBlockQuantized", "MatMulNBits"]
    stored = [table.inputs[0].const_value, head.inputs[1].const_value]
    assert stored[0].tobytes() == stored[1].tobytes()
    assert table.inputs[3] is head.inputs[3]


def test_refuses_zero_points_of_other_groups() -> None:
    done = check(LowerEmbedding(), _with_zeros(8), FEEDS, SAME)
    assert (done.fired, reasons(done)) == (0, ["no kernel has groups of 8 columns"])


def test_refuses_groups_that_are_no_blocks() -> None:
    text = """main (int64[b, s] ids) => (h) {
      w = DequantizeLinear <axis = 1, block_size = 12> (w_q, w_scale)
      h = Gather (w, ids)
    }"""
    q = np.random.default_rng(0).integers(-8, 8, (4096, 48)).astype(ml_dtypes.int4)
    model = load(text, {"w_q": q, "w_scale": random(4096, 4)})
    done = check(LowerEmbedding(), model, FEEDS, SAME)
    assert (done.fired, reasons(done)) == (0, ["no kernel has groups of 12 columns"])


def test_rows_of_odd_columns_are_looked_up_with_their_scales() -> None:
    model = _model(40)
    WeightInt8()(model)
    assert check(LowerEmbedding(), model, FEEDS, SAME).fired == 1
    assert ops(model).count("Gather") == 2
    table = made_by(made_by(model.graph.outputs[0], "Mul").inputs[0], "Cast").inputs[0]
    assert table.producer().inputs[0].const_value.dtype == ir.DataType.INT8


def test_refuses_odd_columns_of_4_bits() -> None:
    text = """main (int64[b, s] ids) => (h) {
      w = DequantizeLinear <axis = 0> (w_q, w_scale)
      h = Gather (w, ids)
    }"""
    q = np.random.default_rng(0).integers(-8, 8, (4096, 40)).astype(ml_dtypes.int4)
    done = LowerEmbedding()
    done(load(text, {"w_q": q, "w_scale": random(4096)}))
    assert (done.fired, reasons(done)) == (0, ["40 columns are no multiple of 16"])


def test_refuses_fp8() -> None:
    model = _model()
    WeightFp8(lambda *_: (8, None))(model)
    done = check(LowerEmbedding(), model, FEEDS, SAME)
    assert (done.fired, reasons(done)) == (0, ["there is no kernel for tables in fp8"])
