"""activation-fp8; what it shares with activation-int8 is tested there."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_passes.contract import Tolerance
from lepton_passes.quant.activation_fp8 import ActivationFp8
from lepton_passes.quant.weight_fp8 import WeightFp8
from lepton_passes.quant.weight_int8 import WeightInt8
from tests.passes.quant.rounding import FEEDS, NAMES, calibration, measured, model
from tests.passes.support import check, ops, reasons

NEAR = Tolerance(error=0.1, cosine=0.99)


def test_the_largest_magnitude_is_the_largest_number_of_the_format() -> None:
    graph = model()
    WeightFp8()(graph)
    found = measured()
    assert check(ActivationFp8(found), graph, FEEDS, NEAR).fired == 6
    assert ops(graph, "block").count("QuantizeLinear") == 2
    most = float(np.abs(FEEDS["x"]).max())
    assert found.scales[NAMES[0]] == pytest.approx(most / 448, rel=0.01)
    assert found.scales[NAMES[0]] >= most / 448  # nothing is clipped


def test_refuses_int8_weights() -> None:
    graph = model()
    WeightInt8()(graph)
    done = check(ActivationFp8(calibration()), graph, FEEDS, NEAR)
    assert (done.fired, set(reasons(done))) == (0, {"its weight is stored as INT8"})


def test_refuses_what_was_not_calibrated() -> None:
    graph = model()
    WeightFp8()(graph)
    done = check(ActivationFp8(calibration([])), graph, FEEDS, NEAR)
    assert (done.fired, set(reasons(done))) == (0, {"its input was not calibrated"})
