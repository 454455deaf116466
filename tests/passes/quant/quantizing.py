"""Graphs for the tests of weight formats: tied table and head, two layers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tests.passes.support import LAYER, Arrays, load, random

ROWS = 4096
FEEDS = {"ids": np.array([[3, 7, 4000]])}
_TEXT = f"""
main (int64[b, s] ids) => (float[b, s, 64] h, float[b, s, {ROWS}] logits) {{{{
  x = Gather (table, ids)
  [layers0] m = ai.lepton.layer.block (x, layers0_up_weight)
  [layers1] h = ai.lepton.layer.block (m, layers1_up_weight)
  {{head}}
}}}}
{LAYER}
block (x, up_weight) => (y) {{{{
  t = Transpose <perm = [1, 0]> (up_weight)
  y = MatMul (x, t)
}}}}
"""
TIED = """turned = Transpose <perm = [1, 0]> (table)
  logits = MatMul (h, turned)"""


def model(head: str = TIED, width: int = 64) -> tuple[ir.Model, Arrays]:
    """A model with a tied table, and its weights."""
    weights = {
        "table": random(ROWS, width, seed=1),
        "layers0_up_weight": random(width, width, seed=2, scale=0.1),
        "layers1_up_weight": random(width, width, seed=3, scale=0.1),
    }
    text = _TEXT.format(head=head).replace("s, 64]", f"s, {width}]")
    return load(text, weights), weights
