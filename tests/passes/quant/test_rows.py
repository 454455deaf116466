"""Quantized rows: one reading of the source where the weight is written before its scales."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.quant._rows import QuantizedRows
from lepton_passes.quant.scales import quantize_int8
from tests.passes.support import Counted


@pytest.mark.parametrize(("scale_first", "readings"), [(False, 1), (True, 2)])
def test_readings_of_the_source(scale_first: bool, readings: int) -> None:
    source = Counted(40, 8)
    rows = QuantizedRows(source.tensor(), quantize_int8, (40,))
    weight, scale = rows.weight(ir.DataType.INT8), rows.scale()
    made = {}
    for tensor in (scale, weight) if scale_first else (weight, scale):
        made[tensor.name] = tensor.numpy()
    expected_q, expected_scale = quantize_int8(source.w)
    np.testing.assert_array_equal(made["w_q"], expected_q)
    np.testing.assert_array_equal(made["w_scale"], expected_scale)
    assert source.rows_read == 40 * readings


def test_scales_of_some_rows_only_read_those() -> None:
    source = Counted(40, 8)
    scale = QuantizedRows(source.tensor(), quantize_int8, (40,)).scale()
    np.testing.assert_array_equal(scale.rows(5, 9), quantize_int8(source.w)[1][5:9])
    assert source.rows_read == 4
