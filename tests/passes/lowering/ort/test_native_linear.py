"""lower-native-linear."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.contract import Tolerance
from lepton_passes.grouped import Form
from lepton_passes.lowering.ort.linear import LowerLinear
from lepton_passes.lowering.ort.native_linear import LowerNativeLinear
from lepton_passes.lowering.ort.packing import STORAGE
from lepton_passes.quant.weight_fp8 import WeightFp8
from lepton_passes.quant.weight_int4 import WeightInt4
from lepton_passes.quant.weight_int8 import WeightInt8
from lepton_passes.quant.weight_stored import WeightStored
from lepton_plugins.linear.spec import ACTIVATIONS
from tests.passes.quant.stored import Stored, stored_in
from tests.passes.support import check, load, ops, random, reasons
from tests.plugins.cpu_library import needs_library

pytestmark = needs_library

# Activations of 8 bits, and of 7.
FOUR = Tolerance(error=0.02, cosine=0.9995)
SEVEN = Tolerance(error=0.03, cosine=0.999)
EIGHT = Tolerance(error=0.015, cosine=0.9999)
FEEDS = {"x": random(2, 3, 64)}


def _model(then: str = "y = Identity (a)", width: int = 64, rows: int = 96) -> ir.Model:
    text = f"""main (float[b, s, {width}] x) => (y) {{
      t = Transpose <perm = [1, 0]> (w)
      m = MatMul (x, t)
      a = Add (m, bias)
      {then}
    }}"""
    return load(text, {"w": random(rows, width, seed=1), "bias": random(rows, seed=2)})


def _layer(model: ir.Model) -> ir.Node:
    return next(node for node in model.graph if node.op_type == "QuantizedLinear")


def _as_decoder(model: ir.Model) -> ir.Model:
    past = ir.Value(name="past_key_values.0.key", type=ir.TensorType(ir.DataType.FLOAT))
    past.shape = ir.Shape((1,))
    model.graph.inputs.append(past)
    return model


@pytest.mark.parametrize("group", [32, 64])
def test_int4_takes_the_bias(group: int) -> None:
    model = _model()
    WeightInt4(lambda *_: (4, group))(model)
    assert check(LowerNativeLinear(), model, FEEDS, FOUR).fired == 1
    assert ops(model) == ["QuantizedLinear", "Identity"]
    node = _layer(model)
    assert (node.attributes["bits"].as_int(), node.attributes["block_size"].as_int()) == (4, group)
    tiles = node.inputs[1].const_value
    assert tiles.shape.numpy() == (6, 64 // group * (32 + 8 * group))
    assert tiles.metadata_props[STORAGE] == f"w_q/tiles4/{group}"


def test_int4_of_an_onnx_file_keeps_its_numbers() -> None:
    model = _model()
    WeightInt4()(model)
    read = ir.from_proto(ir.to_proto(model))
    assert check(LowerNativeLinear(), read, FEEDS, FOUR).fired == 1
    native = LowerNativeLinear()
    native(model)
    ours, theirs = (_layer(each).inputs[1].const_value.numpy() for each in (model, read))
    np.testing.assert_array_equal(ours, theirs)


def test_int8_of_an_encoder_has_7_bits_in_groups() -> None:
    model = _model()
    WeightInt8()(model)
    assert check(LowerNativeLinear(), model, FEEDS, SEVEN).fired == 1
    assert ops(model) == ["QuantizedLinear", "Identity"]
    node = _layer(model)
    assert (node.attributes["bits"].as_int(), node.attributes["block_size"].as_int()) == (7, 64)


def test_int8_of_a_decoder_keeps_8_bits() -> None:
    model = _as_decoder(_model())
    WeightInt8()(model)
    feeds = {**FEEDS, "past_key_values.0.key": np.zeros(1, np.float32)}
    assert check(LowerNativeLinear(), model, feeds, EIGHT).fired == 1
    assert ops(model) == ["QuantizedLinear", "Identity"]
    assert _layer(model).attributes["bits"].as_int() == 8


@pytest.mark.parametrize(("rows", "bias"), [(96, 1), (1, 96)])
def test_a_bias_that_is_broadcast_stays(rows: int, bias: int) -> None:
    model = _model(rows=rows)
    model.graph.initializers["bias"].const_value = ir.tensor(random(bias), name="bias")
    model.graph.initializers["bias"].shape = ir.Shape([bias])
    WeightInt8()(model)
    assert check(LowerNativeLinear(), model, FEEDS, SEVEN).fired == 1
    assert ops(model) == ["QuantizedLinear", "Add", "Identity"]


@pytest.mark.parametrize(
    ("then", "activation"),
    [
        ("y = Gelu (a)", "gelu"),
        ('y = Gelu <approximate = "tanh"> (a)', "gelu_tanh"),
        ("y = com.microsoft.QuickGelu <alpha = 1.0> (a)", "silu"),
    ],
)
def test_an_activation_goes_inside(then: str, activation: str) -> None:
    model = _model(then)
    WeightInt4()(model)
    assert check(LowerNativeLinear(), model, FEEDS, FOUR).fired == 1
    assert ops(model) == ["QuantizedLinear"]
    assert _layer(model).attributes["activation"].as_int() == ACTIVATIONS[activation]


GATE = """sizes = Constant <value = int64[2] {48, 48}> ()
      g, u = Split <axis = -1> (a, sizes)
      h = Gelu (g)
      y = Mul (h, u)"""


def test_a_gate_goes_inside() -> None:
    model = _model(GATE)
    WeightInt4()(model)
    assert check(LowerNativeLinear(), model, FEEDS, FOUR).fired == 1
    assert ops(model) == ["QuantizedLinear"]
    assert _layer(model).attributes["gated"].as_int() == 1


@pytest.mark.parametrize(
    ("then", "left"),
    [
        (GATE.replace("48, 48", "32, 64").replace("Mul (h, u)", "Concat <axis = -1> (h, u)"), 3),
        (GATE.replace("Mul (h, u)", "Add (h, u)"), 3),
        (GATE.replace("Mul (h, u)", "Mul (h, h)"), 3),
        ("h = Gelu (a)\ny = Add (h, a)", 2),
        ("y = com.microsoft.QuickGelu <alpha = 1.702> (a)", 1),
    ],
)
def test_what_only_looks_like_it_stays(then: str, left: int) -> None:
    model = _model(then)
    WeightInt4()(model)
    assert check(LowerNativeLinear(), model, FEEDS, FOUR).fired == 1
    assert len(ops(model)) == 1 + left
    assert _layer(model).attributes["activation"].as_int() == 0


def test_layers_behind_an_activation_read_the_new_value() -> None:
    text = """main (float[b, 64] x) => (y) {
      t = Transpose <perm = [1, 0]> (w)
      m = MatMul (x, t)
      h = Gelu (m)
      u = Transpose <perm = [1, 0]> (v)
      y = MatMul (h, u)
    }"""
    model = load(text, {"w": random(32, 64), "v": random(16, 32)})
    WeightInt4()(model)
    assert check(LowerNativeLinear(), model, {"x": random(5, 64)}, FOUR).fired == 2
    assert ops(model) == ["QuantizedLinear", "QuantizedLinear"]


@pytest.mark.parametrize("quantize", [WeightInt4, WeightInt8])
def test_a_tied_table_shares_the_tiles(quantize: type[WeightInt4 | WeightInt8]) -> None:
    text = """main (int64[b, s] ids) => (y, h) {
      h = Gather (w, ids)
      t = Transpose <perm = [1, 0]> (w)
      y = MatMul (h, t)
    }"""
    model = load(text, {"w": random(4096, 64)})
    quantize()(model)
    feeds = {"ids": np.array([[1, 2, 4095, 0]])}
    assert check(LowerNativeLinear(), model, feeds, FOUR).fired == 1
    assert ops(model) == ["QuantizedEmbedding", "QuantizedLinear"]
    table, layer = model.graph
    assert table.inputs[0] is layer.inputs[1]


def test_fp32_is_left_to_onnxruntime() -> None:
    model = _model()
    assert LowerNativeLinear()(model).model is model
    assert "QuantizedLinear" not in ops(model)


def test_refuses_groups_that_have_no_steps() -> None:
    model = _model(width=48)
    WeightInt4(lambda *_: (4, 64))(model)
    native = LowerNativeLinear()
    native(model)
    assert native.fired == 0
    assert reasons(native) == ["groups of 16 columns are no multiple of 32"]
    LowerLinear()(model)
    assert "MatMulNBits" in ops(model)


def test_refuses_half_precision() -> None:
    text = """main (float16[b, 64] x) => (y) {
      w = DequantizeLinear <axis = 0> (w_q, w_scale)
      t = Transpose <perm = [1, 0]> (w)
      y = MatMul (x, t)
    }"""
    q = np.random.default_rng(0).integers(-127, 128, (96, 64)).astype(np.int8)
    model = load(text, {"w_q": q, "w_scale": random(96).astype(np.float16)})
    native = LowerNativeLinear()
    native(model)
    assert reasons(native) == ["the kernel reads and makes fp32 alone"]


def test_refuses_fp8() -> None:
    model = _model()
    WeightFp8()(model)
    native = LowerNativeLinear()
    native(model)
    assert reasons(native) == ["there is no kernel for weights in fp8"]


ZEROS = """main (float[b, 64] x) => (y) {
      w = DequantizeLinear <axis = 1, block_size = 32> (w_q, w_scale, w_zero)
      t = Transpose <perm = [1, 0]> (w)
      y = MatMul (x, t)
    }"""


def _with_zeros(bits: int, rows: int, text: str = ZEROS) -> ir.Model:
    numbers = np.random.default_rng(0)
    dtype = ml_dtypes.uint4 if bits == 4 else np.uint8
    weights = {
        "w_q": numbers.integers(0, 2**bits, (rows, 64)).astype(dtype),
        "w_scale": numbers.uniform(0.01, 0.1, (rows, 2)).astype(np.float32),
        "w_zero": numbers.integers(0, 2**bits, (rows, 2)).astype(dtype),
    }
    return load(text, weights)


@pytest.mark.parametrize("rows", [16, 20])
@pytest.mark.parametrize("bits", [4, 8])
def test_zero_points_go_along(bits: int, rows: int) -> None:
    model = _with_zeros(bits, rows)
    assert check(LowerNativeLinear(), model, {"x": random(5, 64)}, FOUR).fired == 1
    assert ops(model) == ["QuantizedLinear"]
    node = _layer(model)
    assert node.attributes.get_int("offsets") == 1
    assert len([value for value in node.inputs if value is not None]) == 2


@pytest.mark.parametrize("form", ["offsets", "floats"])
def test_offsets_and_floats_go_along(form: Form) -> None:
    text = """main (float[b, 64] x) => (y) {
      t = Transpose <perm = [1, 0]> (w)
      y = MatMul (x, t)
    }"""
    model = stored_in(load(text, {"w": random(20, 64)}), w=Stored.made(20, 64, form=form))
    WeightStored()(model)
    assert check(LowerNativeLinear(), model, {"x": random(5, 64)}, FOUR).fired == 1
    assert ops(model) == ["QuantizedLinear"]
    assert [_layer(model).attributes.get_int(name) for name in ("bits", form)] == [4, 1]


def test_a_tied_table_shares_its_zero_points() -> None:
    text = """main (int64[b, s] ids) => (y, h) {
      w = DequantizeLinear <axis = 1, block_size = 32> (w_q, w_scale, w_zero)
      h = Gather (w, ids)
      t = Transpose <perm = [1, 0]> (w)
      y = MatMul (h, t)
    }"""
    model = _with_zeros(4, 70, text)
    feeds = {"ids": np.array([[1, 2, 69, 0]])}
    assert check(LowerNativeLinear(), model, feeds, FOUR).fired == 1
    assert ops(model) == ["QuantizedEmbedding", "QuantizedLinear"]
    table, layer = model.graph
    assert table.inputs[0] is layer.inputs[1]
    assert [node.attributes.get_int("offsets") for node in (table, layer)] == [1, 1]


ORDERED = """main (float[b, s, 64] x) => (y, z) {
      g = Gather <axis = -1> (x, order)
      t = Transpose <perm = [1, 0]> (w)
      y = MatMul (g, t)
      u = Transpose <perm = [1, 0]> (v)
      z = MatMul (g, u)
    }"""


def _ordered(order: np.ndarray) -> ir.Model:
    weights = {"w": random(32, 64, seed=1), "v": random(16, 64, seed=2), "order": order}
    return load(ORDERED, weights)


SHUFFLED = np.random.default_rng(0).permutation(64)


def test_an_order_of_columns_goes_inside() -> None:
    model = _ordered(SHUFFLED.astype(np.int32))
    WeightInt4()(model)
    assert check(LowerNativeLinear(), model, FEEDS, FOUR).fired == 2
    assert ops(model) == ["QuantizedLinear", "QuantizedLinear"]
    assert [node.inputs[0].name for node in model.graph] == ["x", "x"]
    assert all(node.inputs[2] is None for node in model.graph)


@pytest.mark.parametrize(
    ("order", "bits"),
    [
        (SHUFFLED, 4),  # int64
        ((SHUFFLED - 64).astype(np.int32), 4),
        (SHUFFLED.astype(np.int32), 8),
    ],
)
def test_an_order_that_the_kernel_does_not_take_stays(order: np.ndarray, bits: int) -> None:
    model = _ordered(order)
    (WeightInt4() if bits == 4 else WeightInt8())(model)
    assert check(LowerNativeLinear(), model, FEEDS, FOUR if bits == 4 else SEVEN).fired == 2
    assert ops(model) == ["Gather", "QuantizedLinear", "QuantizedLinear"]


@pytest.mark.parametrize("width", [32, 128])
def test_an_order_of_some_columns_stays(width: int) -> None:
    """The kernel takes rows of x for as wide as the order is long."""
    order = np.random.default_rng(0).integers(0, width, 64).astype(np.int32)
    weights = {"w": random(32, 64, seed=1), "v": random(16, 64, seed=2), "order": order}
    model = load(ORDERED.replace("float[b, s, 64]", f"float[b, s, {width}]"), weights)
    WeightInt4()(model)
    feeds = {"x": random(2, 3, width)}
    assert check(LowerNativeLinear(), model, feeds, FOUR).fired == 2
    assert ops(model) == ["Gather", "QuantizedLinear", "QuantizedLinear"]
