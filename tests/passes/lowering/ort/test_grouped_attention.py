"""lower-grouped-attention."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.lowering.ort.grouped_attention import LowerGroupedAttention
from tests.passes.lowering.ort.test_attention import MASK
from tests.passes.support import LAYER, check, load, ops, random, reasons
from tests.plugins.cpu_library import needs_library

pytestmark = needs_library

WIDTH = 16
HEADS = 4


def _model(
    kv_heads: int = 4,
    window: int = -1,
    causal: int = 0,
    softcap: float = 0.0,
    of: str = "float",
    width: int = WIDTH,
    more: str = "",
) -> ir.Model:
    wide, narrow = HEADS * width, kv_heads * width
    return load(
        f"""main ({of}[b, s, {wide}] q, {of}[b, s, {narrow}] k, {of}[b, s, {narrow}] v,
              int64[b, s] mask, {of}[{HEADS}] sinks) => ({of}[b, s, {wide}] y) {{
          m = Cast <to = 9> (mask)
          y = ai.lepton.Attention <q_num_heads = {HEADS}, kv_num_heads = {kv_heads}, scale = 0.4,
            softcap = {softcap}, causal = {causal}, window = {window}> (q, k, v, m{more})
        }}"""
    )


def _in_a_layer() -> ir.Model:
    """Whose mask is made inside, and whose heads nothing says the width of."""
    return load(
        f"""main (float[b, s, 64] q, float[b, s, 32] k, float[b, s, 32] v, int64[b, s] mask)
              => (float[b, s, 64] y) {{
          y = ai.lepton.layer.block (q, k, v, mask)
        }}
        {LAYER}
        block (q, k, v, mask) => (y) {{
          m = Cast <to = 9> (mask)
          y = ai.lepton.Attention <q_num_heads = 4, kv_num_heads = 2, scale = 0.4,
            softcap = 0.0, causal = 0, window = -1> (q, k, v, m)
        }}"""
    )


def _feeds(kv_heads: int) -> dict[str, Any]:
    narrow = kv_heads * WIDTH
    return {
        "q": random(2, 6, HEADS * WIDTH),
        "k": random(2, 6, narrow, seed=1),
        "v": random(2, 6, narrow, seed=2),
        "mask": MASK,
        "sinks": random(HEADS, seed=3),
    }


@pytest.mark.parametrize(
    "how",
    [
        {"kv_heads": 2},
        {"kv_heads": 1, "causal": 1},
        {"window": 2},
        {"window": 3, "causal": 1},
        {"kv_heads": 2, "window": 2, "softcap": 3.0},
    ],
)
def test_groups_windows_and_softcaps(how: dict[str, Any]) -> None:
    model = _model(**how)
    grouped = check(LowerGroupedAttention(), model, _feeds(how.get("kv_heads", 4)), CLOSE)
    assert grouped.fired == 1
    assert ops(model) == ["Cast", "Cast", "MultiHeadAttention"]
    assert model.graph[-1].domain == "ai.lepton.cpu"


def test_what_onnxruntime_has_is_left_to_it() -> None:
    model = _model()
    grouped = LowerGroupedAttention()
    grouped(model)
    assert (grouped.fired, reasons(grouped)) == (0, [])
    assert ops(model) == ["Cast", "Attention"]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"of": "float16"}, "the kernel reads fp32 alone"),
        ({"width": 12}, "heads of 12 are no multiple of 8"),
        ({"more": ", sinks"}, "the kernel has sinks beside a cache alone"),
    ],
)
def test_refuses(how: dict[str, Any], reason: str) -> None:
    model = _model(kv_heads=2, **how)
    grouped = LowerGroupedAttention()
    grouped(model)
    assert reasons(grouped) == [reason]
    assert ops(model) == ["Cast", "Attention"]


def test_refuses_a_mask_that_is_made_inside_the_layer() -> None:
    model = _in_a_layer()
    grouped = LowerGroupedAttention()
    grouped(model)
    assert reasons(grouped) == ["the mask is made inside the layer"]
    assert ops(model, "block") == ["Cast", "Attention"]
