"""lower-linear."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_passes.contract import CLOSE, Tolerance
from lepton_passes.lowering.ort.linear import LowerLinear, default_kernel
from lepton_passes.lowering.ort.packing import STORAGE, packed_zeros
from lepton_passes.quant.weight_fp8 import WeightFp8
from lepton_passes.quant.weight_int4 import WeightInt4
from lepton_passes.quant.weight_int8 import WeightInt8
from tests.passes.support import check, load, ops, random, reasons

ROUNDED = Tolerance(error=0.03, cosine=0.999)
FEEDS = {"x": random(2, 3, 64)}


def _model(width: int = 64, rows: int = 96, bias: int = 96) -> ir.Model:
    text = f"""main (float[b, s, {width}] x) => (y) {{
      t = Transpose <perm = [1, 0]> (w)
      m = MatMul (x, t)
      y = Add (m, bias)
    }}"""
    return load(text, {"w": random(rows, width, seed=1), "bias": random(bias, seed=2)})


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


@pytest.mark.parametrize(("rows", "bias"), [(96, 1), (1, 96)])
@pytest.mark.parametrize("kernel", ["dynamic", "nbits"])
def test_a_bias_that_is_broadcast_stays(kernel: str, rows: int, bias: int) -> None:
    model = _model(rows=rows, bias=bias)
    WeightInt8()(model)
    assert check(LowerLinear(lambda *_: kernel), model, FEEDS, ROUNDED).fired == 1
    assert ops(model)[1:] == ["Add"]


def _of_a_file(q: np.ndarray, scale: np.ndarray, axis: str, dtype: str = "float") -> ir.Model:
    """A layer as an ONNX file has it that others quantized."""
    text = f"""main ({dtype}[b, {q.shape[1]}] x) => (y) {{
      w = DequantizeLinear <axis = {axis}> (w_q, w_scale)
      t = Transpose <perm = [1, 0]> (w)
      y = MatMul (x, t)
    }}"""
    return load(text, {"w_q": q, "w_scale": scale})


@pytest.mark.parametrize(("columns", "group"), [(40, 32), (64, 20)])
def test_groups_that_are_not_whole_are_no_layer(columns: int, group: int) -> None:
    q = np.random.default_rng(0).integers(-8, 8, (96, columns)).astype(ml_dtypes.int4)
    scale = np.abs(random(96, -(-columns // group)))
    model = _of_a_file(q, scale, f"1, block_size = {group}")
    done = check(LowerLinear(), model, {"x": random(3, columns)}, CLOSE)
    assert (done.fired, done.refusals) == (0, [])


@pytest.mark.parametrize("group", [8, 12])
def test_refuses_groups_that_are_no_blocks(group: int) -> None:
    q = np.random.default_rng(0).integers(-8, 8, (96, 48)).astype(ml_dtypes.int4)
    scale = np.abs(random(96, 48 // group))
    model = _of_a_file(q, scale, f"1, block_size = {group}")
    done = check(LowerLinear(), model, {"x": random(3, 48)}, CLOSE)
    assert reasons(done) == [f"no kernel has groups of {group} columns"]


@pytest.mark.parametrize("scale", [np.float32(0.1), np.array([0.1], np.float32)])
def test_one_scale_for_all_rows_is_no_layer(scale: np.ndarray) -> None:
    q = np.random.default_rng(0).integers(-127, 128, (96 if scale.ndim == 0 else 1, 64))
    model = _of_a_file(q.astype(np.int8), np.asarray(scale), "0")
    done = check(LowerLinear(), model, {"x": random(3, 64)}, ROUNDED)
    assert done.fired == scale.ndim


def test_half_precision_has_a_kernel_with_blocks_alone() -> None:
    q = np.random.default_rng(0).integers(-127, 128, (96, 64)).astype(np.int8)
    scale = (np.abs(random(96)) * 0.1).astype(np.float16)
    model = _of_a_file(q, scale, "0", "float16")
    feeds = {"x": random(3, 64).astype(np.float16)}
    assert check(LowerLinear(lambda *_: "dynamic"), model, feeds, ROUNDED).fired == 1
    assert ops(model) == ["MatMulNBits"]


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


def _with_zeros(bits: int, group: int, columns: int = 192) -> tuple[ir.Model, np.ndarray]:
    """A layer whose groups have zero points, and the zero points."""
    numbers, dtype = np.random.default_rng(0), ml_dtypes.uint4 if bits == 4 else np.uint8
    text = f"""main (float[b, s, {columns}] x) => (y) {{
      w = DequantizeLinear <axis = 1, block_size = {group}> (w_q, w_scale, w_zero)
      t = Transpose <perm = [1, 0]> (w)
      m = MatMul (x, t)
      y = Add (m, bias)
    }}"""
    zeros = numbers.integers(0, 2**bits, (96, columns // group)).astype(np.uint8)
    weights = {
        "w_q": numbers.integers(0, 2**bits, (96, columns)).astype(np.uint8).astype(dtype),
        "w_scale": numbers.uniform(0.01, 0.1, zeros.shape).astype(np.float32),
        "w_zero": zeros.astype(dtype),
        "bias": random(96, seed=2),
    }
    return load(text, weights), zeros


@pytest.mark.parametrize("group", [16, 32, 64])
@pytest.mark.parametrize("bits", [4, 8])
def test_zero_points_go_along(bits: int, group: int) -> None:
    model, zeros = _with_zeros(bits, group)
    feeds = {"x": random(2, 3, 192)}
    assert check(LowerLinear(accuracy_level=1), model, feeds, CLOSE).fired == 1
    assert ops(model) == ["MatMulNBits"]
    packed = model.graph[0].inputs[3].const_value.numpy()
    assert packed.shape == (96, 192 // group if bits == 8 else -(-192 // group // 2))
    np.testing.assert_array_equal(packed[:, 0] & (2**bits - 1), zeros[:, 0])


def test_zero_points_in_int8_arithmetic() -> None:
    model, _ = _with_zeros(4, 64)
    assert check(LowerLinear(), model, {"x": random(2, 3, 192)}, ROUNDED).fired == 1
    assert model.graph[0].attributes["accuracy_level"].as_int() == 4


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 7), blocks=st.integers(1, 9), seed=st.integers(0, 99))
def test_two_zero_points_lie_in_a_byte(rows: int, blocks: int, seed: int) -> None:
    """Each row begins with a byte of its own, and what one half of its last says is nothing."""
    zeros = np.random.default_rng(seed).integers(0, 16, (rows, blocks)).astype(np.uint8)
    packed = packed_zeros(ir.tensor(zeros.view(ml_dtypes.uint4)))
    assert packed.shape.numpy() == (rows, (blocks + 1) // 2)
    found = packed.numpy()
    both = np.stack([found & 15, found >> 4], axis=-1).reshape(rows, -1)
    np.testing.assert_array_equal(both[:, :blocks], zeros)
    assert not both[:, blocks:].any()
    np.testing.assert_array_equal(packed.rows(rows - 1, rows), found[rows - 1 :])


def test_refuses_zero_points_of_other_groups() -> None:
    model, _ = _with_zeros(4, 8)
    done = check(LowerLinear(), model, {"x": random(1, 2, 192)}, CLOSE)
    assert (done.fired, reasons(done)) == (0, ["no kernel has groups of 8 columns"])


def test_groups_that_do_not_divide_a_row_stay() -> None:
    text = """main (float[b, s, 40] x) => (y) {
      d = DequantizeLinear <axis = 1, block_size = 32> (q, scale)
      t = Transpose <perm = [1, 0]> (d)
      y = MatMul (x, t)
    }"""
    q = np.random.default_rng(0).integers(-8, 8, (96, 40), dtype=np.int8)
    model = load(text, {"q": q, "scale": np.abs(random(96, 2)) + 0.1})
    assert check(LowerLinear(), model, {"x": random(2, 3, 40)}, CLOSE).fired == 0
    assert ops(model) == ["DequantizeLinear", "Transpose", "MatMul"]


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
