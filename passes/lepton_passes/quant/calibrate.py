"""See the ranges of what linear layers read, by running the graph on a sample.

    Before   MatMul(x, Transpose(W)), ...
    After    the same graph; the range of each x is known to the passes behind

Place: behind clean-up, so that the layers are those that are quantized, and in front of all that
rounds: ranges are of the fp32 model. Refuses nothing; what the run does not reach stays unknown,
and ``activation-int8`` and ``activation-fp8`` refuse it.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.quant.calibration import Calibration

__all__ = ["Calibrate"]


class Calibrate(LeptonPass):
    """See the ranges of what linear layers read; it fires once for each layer.

    Args:
        calibration: where the ranges go, and how they are measured.
    """

    name = "calibrate"
    summary = "Calibration: ranges of activations, on a sample"

    def __init__(self, calibration: Calibration | None = None) -> None:
        super().__init__()
        self._calibration = calibration if calibration is not None else Calibration()

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        found = self._calibration.measure(model)
        self._calibration.ranges.update(found)
        self.fired, self.refusals = len(found), []
        return ir.passes.PassResult(model, modified=False)

    def rewrite(self, body: Body) -> None:
        """Nothing is rewritten."""
