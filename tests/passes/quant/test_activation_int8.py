"""activation-int8, and what it shares with activation-fp8."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_passes.contract import Tolerance
from lepton_passes.fusion.packed_gate_up import PackedGateUp
from lepton_passes.quant.activation_int8 import ActivationInt8
from lepton_passes.quant.weight_fp8 import WeightFp8
from lepton_passes.quant.weight_int4 import WeightInt4
from lepton_passes.quant.weight_int8 import WeightInt8
from tests.passes.quant import quantizing
from tests.passes.quant.rounding import FEEDS, NAMES, calibration, measured, model
from tests.passes.support import assert_close, check, ops, random, reasons, run

NEAR = Tolerance(error=0.05, cosine=0.999)
PAIR = ["QuantizeLinear", "DequantizeLinear"]
LAYER = ["DequantizeLinear", "Transpose", "MatMul"]


def test_layers_that_read_the_same_share_a_pair() -> None:
    graph = model()
    WeightInt8()(graph)
    found = measured()
    assert check(ActivationInt8(found), graph, FEEDS, NEAR).fired == 6
    assert sorted(ops(graph, "block")) == sorted([*PAIR, *LAYER, *LAYER, "Mul", *PAIR, *LAYER])
    scales = {n: v for n, v in graph.graph.initializers.items() if n.endswith(":input_scale")}
    assert len(scales) == 4  # two inputs in each of two layers
    assert set(found.scales) == set(NAMES)
    most = float(np.abs(FEEDS["x"]).max())
    assert 0.5 * most / 127 < found.scales[NAMES[0]] < 1.02 * most / 127


def test_a_layer_has_the_scale_of_its_own_input() -> None:
    graph = model()
    WeightInt8()(graph)
    found = calibration(NAMES[:3], reach=8.0)
    found.ranges |= calibration(NAMES[3:], reach=20.0).ranges
    ActivationInt8(found)(graph)
    stored = {
        name: float(value.const_value.numpy())
        for name, value in graph.graph.initializers.items()
        if name.endswith(":input_scale")
    }
    assert stored == {
        f"{name}:input_scale": np.float32(found.scales[name])
        for name in (NAMES[0], NAMES[2], NAMES[3], NAMES[5])
    }
    assert found.scales[NAMES[3]] > 2 * found.scales[NAMES[0]]


def test_scales_by_row_make_the_result_near_fp32() -> None:
    graph, plain = model(), model()
    WeightInt8()(graph)
    ActivationInt8(measured())(graph)
    assert_close(run(plain, FEEDS), run(graph, FEEDS), NEAR)


def test_what_is_stacked_afterwards_reads_the_pair() -> None:
    graph = model()
    WeightInt8()(graph)
    ActivationInt8(measured())(graph)
    stacked = PackedGateUp()
    check(stacked, graph, FEEDS, Tolerance(error=1e-5, cosine=0.99999))
    assert ops(graph, "block").count("QuantizeLinear") == 2


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (WeightFp8, "its weight is stored as FLOAT8E4M3FN"),
        (WeightInt4, "its weight is stored as INT4"),
    ],
)
def test_refuses_other_formats(weights: type[WeightFp8 | WeightInt4], reason: str) -> None:
    graph = model()
    weights()(graph)
    done = check(ActivationInt8(calibration()), graph, FEEDS, NEAR)
    assert (done.fired, set(reasons(done))) == (0, {reason})


def test_refuses_scales_by_block() -> None:
    graph = model()
    pass_with_blocks = WeightInt8()
    pass_with_blocks.group_for = lambda columns, group: 32  # type: ignore[method-assign]
    pass_with_blocks(graph)
    done = check(ActivationInt8(calibration()), graph, FEEDS, NEAR)
    assert (done.fired, set(reasons(done))) == (0, {"its weight has scales by block"})


def test_refuses_what_was_not_calibrated() -> None:
    graph = model()
    WeightInt8()(graph)
    known = measured()
    del known.ranges[NAMES[5]]
    done = check(ActivationInt8(known), graph, FEEDS, NEAR)
    assert reasons(done) == ["its input was not calibrated"]
    assert done.fired == 4


def test_refuses_a_table() -> None:
    graph, _ = quantizing.model()
    WeightInt8()(graph)
    names = ["table", "layers0_up_weight", "layers1_up_weight"]
    done = check(ActivationInt8(calibration(names)), graph, quantizing.FEEDS, NEAR)
    assert reasons(done) == ["its weight is an embedding table too"]
    assert done.fired == 2


def test_plain_layers_are_left() -> None:
    graph = model()
    before = ops(graph, "block")
    done = check(ActivationInt8(calibration()), graph, {"x": random(1, 2, 64)}, NEAR)
    assert (done.fired, reasons(done), ops(graph, "block")) == (0, [], before)
