"""Graphs for the tests of rounded activations: two layers that share a function, and a reader."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lepton_compile.pipeline.calibrate import calibrate
from lepton_passes.quant.calibration import Calibration
from lepton_passes.quant.ranges import InputRange
from tests.passes.support import LAYER, load, random

WIDTH = 64
FEEDS = {"x": random(3, 5, WIDTH, seed=4)}
NAMES = [f"layers{n}_{part}_weight" for n in (0, 1) for part in ("up", "gate", "down")]
_TEXT = f"""
main (float[b, s, {WIDTH}] x) => (float[b, s, {WIDTH}] h) {{
  [layers0] m = ai.lepton.layer.block (x, layers0_up_weight, layers0_gate_weight, \
layers0_down_weight)
  [layers1] h = ai.lepton.layer.block (m, layers1_up_weight, layers1_gate_weight, \
layers1_down_weight)
}}
{LAYER}
block (x, up_weight, gate_weight, down_weight) => (y) {{
  up_turned = Transpose <perm = [1, 0]> (up_weight)
  up = MatMul (x, up_turned)
  gate_turned = Transpose <perm = [1, 0]> (gate_weight)
  gate = MatMul (x, gate_turned)
  both = Mul (up, gate)
  down_turned = Transpose <perm = [1, 0]> (down_weight)
  y = MatMul (both, down_turned)
}}
"""


def model() -> ir.Model:
    """Two layers of three linear layers; the first two read the same input."""
    weights = {name: random(WIDTH, WIDTH, seed=seed, scale=0.12) for seed, name in enumerate(NAMES)}
    return load(_TEXT, weights)


def measured() -> Calibration:
    """What the layers really read."""
    return Calibration(ranges=calibrate(model(), [FEEDS]))


def calibration(names: list[str] | None = None, reach: float = 8.0) -> Calibration:
    """Ranges of normal numbers up to ``reach``, the same for all layers."""
    seen = InputRange()
    seen.see(np.linspace(-reach, reach, 50 * WIDTH, dtype=np.float32).reshape(-1, WIDTH))
    return Calibration(ranges=dict.fromkeys(NAMES if names is None else names, seen))
