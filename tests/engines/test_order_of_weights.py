"""Weights are written as a run comes upon them: a quantized one before its scales, rounded once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from lepton_compile.engines.model_file import write_model
from lepton_passes.quant._rows import QuantizedRows
from lepton_passes.quant.scales import quantize_int8
from tests.passes.support import Counted

ROWS, COLUMNS = 512, 16


def initializer(tensor: ir.TensorProtocol) -> ir.Value:
    kind, shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
    return ir.Value(name=tensor.name, type=kind, shape=shape, const_value=tensor)


def model_of(source: Counted) -> ir.Model:
    """Its initializers are the scales first, then one without a reader, then the weight."""
    rows = QuantizedRows(source.tensor(), quantize_int8, (ROWS,))
    idle = ir.tensor(np.ones(ROWS, np.float32), name="idle")
    weights = [initializer(t) for t in (rows.scale(), idle, rows.weight(ir.DataType.INT8))]
    node = ir.node("DequantizeLinear", [weights[2], weights[0]], {"axis": 0})
    out = node.outputs[0]
    out.name, out.dtype, out.shape = "out", ir.DataType.FLOAT, ir.Shape([ROWS, COLUMNS])
    graph = ir.Graph(
        [], [out], nodes=[node], initializers=weights, opset_imports={"": 21}, name="main"
    )
    return ir.Model(graph, ir_version=10)


def test_a_weight_is_rounded_once(tmp_path: Path) -> None:
    source = Counted(ROWS, COLUMNS)
    file = write_model(model_of(source), tmp_path)[0]
    assert source.rows_read == ROWS
    model = onnx.load(file)
    made = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    q, scale = quantize_int8(source.w)
    np.testing.assert_array_equal(made["w_q"], q)
    np.testing.assert_array_equal(made["w_scale"], scale)
    np.testing.assert_array_equal(made["idle"], np.ones(ROWS, np.float32))
