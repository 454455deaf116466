"""lower-linear."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.contract import CLOSE, Tolerance
from lepton_passes.lowering.ort.linear import LowerLinear, default_kernel
from lepton_passes.lowering.ort.packing import STORAGE
from lepton_passes.quant.weight_fp8 import WeightFp8
from lepton_passes.quant.weight_int4 import WeightInt4
from lepton_passes.quant.weight_int8 import WeightInt8
from tests.passes.support import check, load, ops, random, reasons

ROUNDED = Tolerance(error=0.03, cosine=0.999)
FEEDS = {"x": random(2, 3, 64)}


def _model(width: int = 64) -> ir.Model:
    text = f"""main (float[b, s, {width}] x) => (y) {{
      t = Transpose <perm = [1, 0]> (w)
      m = MatMul (x, t)
      y = Add (m, bias)
    }}"""
    return load(text, {"w": random(96, width, seed=1), "bias": random(96, seed=2)})


def test_fp32_keeps_the_weight() -> None:
    model = _model()
    tensor = model.graph.initializers["w"].const_value
    assert check(LowerLinear(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == ["FusedMatMul", "Add"]
    assert model.graph.initializers["w"].const_value is tensor


@pytest.mark.parametrize(
    ("kernel", "op_type"), [("dynamic", "DynamicQuantizeMatMul"), ("nbits", "MatMulNBits")]
)
def test_int8_takes_the_bias(kernel: str, op_type: str) -> None:
    model = _model()
    WeightInt8()(model)
    assert check(LowerLinear(lambda *_: kernel), model, FEEDS, ROUNDED).fired == 1
    assert ops(model) == [op_type]


@pytest.mark.parametrize("group", [32, 64])
def test_int4_takes_the_bias(group: int) -> None:
    model = _model()
    WeightInt4(lambda *_: (4, group))(model)
    assert check(LowerLinear(accuracy_level=1), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == ["MatMulNBits"]
    node = model.graph[0]
    assert node.attributes["block_size"].as_int() == group
    packed = node.inputs[1].const_value
    assert packed.shape.numpy() == (96, 64 // group, group // 2)
    assert packed.metadata_props[STORAGE] == "w_q/u4"


def test_int4_in_int8_arithmetic() -> None:
    model = _model()
    WeightInt4()(model)
    check(LowerLinear(), model, FEEDS, ROUNDED)


@pytest.mark.parametrize(
    ("bits", "made"),
    [(32, ["FusedMatMul"] * 2), (8, ["DynamicQuantizeMatMul", "MatMulNBits"])],
)
def test_a_layer_right_behind_another(bits: int, made: list[str]) -> None:
    text = """main (float[b, s, 64] x) => (z) {
      t = Transpose <perm = [1, 0]> (w)
      y = MatMul (x, t)
      u = Transpose <perm = [1, 0]> (v)
      z = MatMul (y, u)
    }"""
    model = load(text, {"w": random(96, 64, seed=1), "v": random(48, 96, seed=2)})
    if bits == 8:
        WeightInt8()(model)
    assert check(LowerLinear(), model, FEEDS, CLOSE if bits == 32 else ROUNDED).fired == 2
    assert ops(model) == made


def test_default_for_8_bits_of_a_tied_table_is_nbits() -> None:
    text = """main (int64[b, s] ids) => (y) {
      h = Gather (w, ids)
      t = Transpose <perm = [1, 0]> (w)
      y = MatMul (h, t)
    }"""
    model = load(text, {"w": random(4096, 64)})
    WeightInt8()(model)
    check(LowerLinear(), model, {"ids": np.array([[1, 2]])}, ROUNDED)
    assert "MatMulNBits" in ops(model)


def test_refuses_odd_columns_in_nbits() -> None:
    model = _model(40)
    WeightInt8()(model)
    done = check(LowerLinear(lambda *_: "nbits"), model, {"x": random(2, 3, 40)}, CLOSE)
    assert reasons(done) == ["40 columns are no multiple of 16"]


@pytest.mark.parametrize(
    ("rows", "columns", "tied", "decoder", "kernel"),
    [
        (256, 64, False, False, "dynamic"),
        (256, 64, True, False, "nbits"),
        (256, 64, False, True, "nbits"),
        (64, 256, False, False, "nbits"),
        (64, 40, False, True, "dynamic"),
    ],
)
def test_default_kernels(rows: int, columns: int, tied: bool, decoder: bool, kernel: str) -> None:
    assert default_kernel(rows, columns, tied, decoder) == kernel


def test_refuses_fp8() -> None:
    model = load(
        "main (float[b, s, 64] x) => (y) { t = Transpose <perm = [1, 0]> (w) y = MatMul (x, t) }",
        {"w": random(32, 64)},
    )
    WeightFp8()(model)
    done = check(LowerLinear(), model, {"x": random(1, 2, 64)}, CLOSE)
    assert (done.fired, reasons(done)) == (0, ["there is no kernel for weights in fp8"])
