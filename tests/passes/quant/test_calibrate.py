"""calibrate."""

from __future__ import annotations

from lepton_passes.contract import SAME
from lepton_passes.quant.calibrate import Calibrate
from lepton_passes.quant.calibration import Calibration
from lepton_passes.quant.ranges import InputRange
from tests.passes.quant.rounding import FEEDS, NAMES, model
from tests.passes.support import check, ops


def test_ranges_are_kept_and_the_graph_is_as_it_was() -> None:
    graph, found = model(), InputRange()
    before = ops(graph, "block")
    calibration = Calibration(measure=lambda _: {"layers0_up_weight": found})
    assert check(Calibrate(calibration), graph, FEEDS, SAME).fired == 1
    assert ops(graph, "block") == before
    assert calibration.ranges == {"layers0_up_weight": found}


def test_a_plan_knows_the_layers_and_no_numbers() -> None:
    calibration = Calibration()
    assert check(Calibrate(calibration), model(), FEEDS, SAME).fired == 6
    assert set(calibration.ranges) == set(NAMES)
    assert {seen.int8_scale() for seen in calibration.ranges.values()} == {1.0}
