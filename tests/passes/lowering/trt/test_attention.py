"""lower-trt-attention: encoders against the neutral graph, on onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.lowering.trt.attention import LowerTrtAttention
from lepton_passes.lowering.trt.forms import attention_forms
from tests.passes.lowering.trt.reference import executable
from tests.passes.support import LAYER, assert_close, load, ops, random, reasons, run

HEADS, DIM = 4, 8


def _model(
    kv_heads: int = HEADS,
    window: int = -1,
    causal: int = 0,
    softcap: float = 0.0,
    mask: str = "mask",
    heads: int = HEADS,
) -> ir.Model:
    q, kv = HEADS * DIM, kv_heads * DIM * HEADS // heads
    width = q + 2 * kv
    text = f"""main (float[b, s, {width}] x, int64[b, s] attention_mask) => (y, z) {{
      seen = Cast <to = 9> (attention_mask)
      [l0] y = ai.lepton.layer.block (x, seen)
      wide = Concat <axis = -1> (y, y, y)
      sizes = Constant <value_ints = [{width}, {3 * q - width}]> ()
      x1, rest = Split <axis = -1> (wide, sizes)
      [l1] z = ai.lepton.layer.block (x1, seen)
    }}
    {LAYER}
    block (x, mask) => (y) {{
      other = Not (mask)
      sizes = Constant <value_ints = [{q}, {kv}, {kv}]> ()
      q, k, v = Split <axis = -1> (x, sizes)
      y = ai.lepton.Attention <q_num_heads = {heads}, kv_num_heads = {kv_heads}, scale = 0.4,
        softcap = {softcap}, causal = {causal}, window = {window}> (q, k, v, {mask})
    }}"""
    model = load(text)
    block = next(f for f in model.functions.values() if f.name == "block")
    attention = next(n for n in block if n.op_type == "Attention")
    attention.outputs[0].shape = ir.Shape(["b", "s", q])
    return model


def _feeds(width: int, side: str) -> dict[str, np.ndarray]:
    mask = np.ones((2, 7), np.int64)
    if side == "right":
        mask[1, -3:] = 0
    if side == "left":
        mask[1, :3] = 0
    return {"x": random(2, 7, width), "attention_mask": mask}


def _unmasked(causal: int = 0) -> ir.Model:
    q = HEADS * DIM
    model = load(
        f"""main (float[b, s, {q}] x) => (y) {{
          [l0] y = ai.lepton.layer.block (x)
        }}
        {LAYER}
        block (x) => (y) {{
          y = Attention <q_num_heads = {HEADS}, kv_num_heads = {HEADS}, scale = 0.4,
            softcap = 0.0, is_causal = {causal}> (x, x, x)
        }}"""
    )
    block = next(f for f in model.functions.values() if f.name == "block")
    next(n for n in block if n.op_type == "Attention").outputs[0].shape = ir.Shape(["b", "s", q])
    return model


def test_without_a_mask() -> None:
    model, feeds = _unmasked(), {"x": random(2, 7, HEADS * DIM)}
    before, done = run(model, feeds), LowerTrtAttention()
    done(model)
    assert done.fired == 1
    assert "TRT_Attention" in ops(model, "block")
    assert_close(before, run(executable(model), feeds), CLOSE)


def test_of_an_order_without_a_mask_it_stays() -> None:
    done = LowerTrtAttention()
    done(_unmasked(causal=1))
    assert done.fired == 0


@pytest.mark.parametrize("side", ["none", "right", "left"])
@pytest.mark.parametrize(
    ("kv_heads", "window", "causal"), [(4, -1, 0), (2, -1, 0), (4, 1, 0), (4, 3, 0), (2, 2, 1)]
)
def test_numbers(side: str, kv_heads: int, window: int, causal: int) -> None:
    model = _model(kv_heads, window, causal)
    feeds = _feeds((HEADS + 2 * kv_heads) * DIM, side)
    real = feeds["attention_mask"].astype(bool)
    before = [each[real] for each in run(model, feeds)]
    done = LowerTrtAttention()
    done(model)
    assert (done.fired, reasons(done)) == (2, [])
    assert attention_forms(model) == {"encoder": 2}
    assert_close(before, [each[real] for each in run(executable(model), feeds)], CLOSE)


def test_one_bias_for_all_layers() -> None:
    model = _model(window=3)
    LowerTrtAttention()(model)
    assert ops(model).count("Where") == 1
    assert "Where" not in ops(model, "block")


def test_a_row_without_tokens_stays_a_number() -> None:
    model, feeds = _model(), _feeds(3 * HEADS * DIM, "none")
    feeds["attention_mask"][1] = 0
    LowerTrtAttention()(model)
    assert all(np.isfinite(each).all() for each in run(executable(model), feeds))


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_a_softcap_is_written_out(kv_heads: int) -> None:
    model = _model(kv_heads, window=3, softcap=0.5)
    feeds = _feeds((HEADS + 2 * kv_heads) * DIM, "right")
    real = feeds["attention_mask"].astype(bool)
    before = [each[real] for each in run(model, feeds)]
    done = LowerTrtAttention()
    done(model)
    assert (done.fired, reasons(done)) == (2, [])
    assert attention_forms(model) == {"matmul": 2}
    assert "Softmax" in ops(model, "block")
    assert_close(before, [each[real] for each in run(executable(model), feeds)], CLOSE)


def test_wide_heads_are_written_out() -> None:
    model = _model()
    _widened(model, 4 * 512)
    done = LowerTrtAttention()
    done(model)
    assert (done.fired, reasons(done)) == (2, [])
    assert attention_forms(model) == {"matmul": 2}


def test_refuses_a_mask_of_the_layer_and_heads_that_nobody_knows() -> None:
    for model, reason in (
        (_model(mask="other"), "the mask is made inside the layer"),
        (_model(), "the width of its heads is unknown"),
    ):
        _widened(model, None if "width" in reason else HEADS * DIM)
        done = LowerTrtAttention()
        done(model)
        assert (reasons(done), done.fired) == ([reason], 0)
        assert "Attention" in ops(model, "block")


def test_refuses_sinks_without_a_cache() -> None:
    model = _model()
    _widened(model, HEADS * DIM)
    layer = next(f for f in model.functions.values() if f.name == "block")
    node = next(n for n in layer if n.op_type == "Attention")
    node.resize_inputs(5)
    node.replace_input_with(4, node.inputs[0])
    done = LowerTrtAttention()
    done(model)
    assert reasons(done) == ["it has sinks, which are lowered beside a cache alone"]
    assert "Attention" in ops(model, "block")


def _widened(model: ir.Model, width: int | None) -> None:
    block = next(f for f in model.functions.values() if f.name == "block")
    attention = next(n for n in block if n.op_type == "Attention")
    attention.outputs[0].shape = ir.Shape(["b", "s", width])
