"""weight-int4."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.contract import Tolerance
from lepton_passes.quant.weight_int4 import WeightInt4
from tests.passes.quant.quantizing import FEEDS, ROWS, model
from tests.passes.support import check, ops, reasons

CLOSE4 = Tolerance(error=0.2, cosine=0.98)


@pytest.mark.parametrize(("width", "group", "found"), [(64, 32, 32), (64, 64, 64), (48, 128, 16)])
def test_tied_table_and_layers(width: int, group: int, found: int) -> None:
    graph, weights = model(width=width)
    done = check(WeightInt4(lambda *_: (4, group)), graph, FEEDS, CLOSE4)
    assert done.fired == 3
    assert ops(graph, "block") == ["DequantizeLinear", "Transpose", "MatMul"]
    q, scale = (graph.graph.initializers[f"table_{kind}"].const_value for kind in ("q", "scale"))
    assert q.dtype == ir.DataType.INT4
    assert scale.shape.numpy() == (ROWS, width // found)
    wide = q.numpy().astype(np.float32).reshape(ROWS, -1, found) * scale.numpy()[..., None]
    error = np.linalg.norm(wide.reshape(ROWS, width) - weights["table"])
    assert error < 0.12 * np.linalg.norm(weights["table"])


def test_bytes_hold_two_values_low_one_first() -> None:
    graph, _ = model()
    WeightInt4()(graph)
    q = graph.graph.initializers["table_q"].const_value
    stored = np.frombuffer(q.tobytes(), dtype=np.uint8).reshape(ROWS, 32)
    values = q.numpy().astype(np.int8)
    np.testing.assert_array_equal(stored & 15, values[:, 0::2] & 15)
    np.testing.assert_array_equal(stored >> 4, values[:, 1::2] & 15)


def test_takes_only_what_is_chosen_for_4_bits() -> None:
    graph, _ = model()
    choose = {"layers0_up_weight": (4, 32), "layers1_up_weight": (8, None)}
    done = check(WeightInt4(lambda name, _: choose.get(name)), graph, FEEDS, CLOSE4)
    assert done.fired == 1


def test_refuses_columns_that_no_group_divides() -> None:
    graph, _ = model(width=40)
    done = check(WeightInt4(), graph, FEEDS, CLOSE4)
    assert set(reasons(done)) == {"40 columns are no multiple of 16"}
    assert done.fired == 0
