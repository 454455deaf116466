"""The per-pass check writes weights once, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from lepton_compile.errors import CheckpointError, PassError
from lepton_compile.pipeline import check
from lepton_compile.pipeline.check import NumericCheck
from lepton_passes.contract import CHOOSING, LeptonPass
from lepton_passes.lowering.half_precision import LowerHalfPrecision
from lepton_passes.lowering.ort.linear import LowerLinear
from lepton_passes.lowering.ort.silu import LowerSilu
from lepton_passes.quant.weight_int4 import WeightInt4
from lepton_passes.quant.weight_int8 import WeightInt8
from lepton_passes.tensors import StreamedTensor, mapped
from tests.passes.experts import Settings, experts, routed
from tests.passes.support import load, random

TEXT = """main (int64[b, s] input_ids, int64[b, s] attention_mask) => (y) {
  x = Gather (table, input_ids)
  t = Transpose <perm = [1, 0]> (w)
  y = MatMul (x, t)
}"""
FEEDS = {"input_ids": np.array([[1, 2]]), "attention_mask": np.array([[1, 1]])}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def _watched(w: np.ndarray) -> tuple[StreamedTensor, list[tuple[int, int]]]:
    """A weight that is read lazily, and which rows have been."""
    reads: list[tuple[int, int]] = []

    def read(start: int, stop: int) -> np.ndarray:
        reads.append((start, stop))
        return w[start:stop]

    return StreamedTensor("w", ir.DataType.FLOAT, w.shape, read), reads


def test_a_weight_is_read_once(folder: Path) -> None:
    model = load(TEXT, {"table": random(50, 32), "w": random(40, 32)})
    model.graph.initializers["w"].const_value, reads = _watched(random(40, 32))
    with NumericCheck(FEEDS, "fp32") as check:
        check.start(model)
        lower = LowerLinear()
        lower(model)
        assert check(model, lower) < 1e-5
        assert len(list(folder.iterdir())) == 1
    assert reads == [(0, 40)]
    assert list(folder.iterdir()) == []


def test_what_is_made_of_a_weight_does_not_make_it_again(folder: Path) -> None:
    model = load(TEXT, {"table": random(50, 32), "w": random(40, 32)})
    w = random(40, 32)
    whole, reads = _watched(w)
    halves = [mapped(whole, "half", lambda rows: rows / 2) for _ in range(2)]
    with NumericCheck(FEEDS, "fp32") as check:
        model.graph.initializers["w"].const_value = whole
        check.start(model)
        model.graph.initializers["w"].const_value = halves[0]
        with pytest.raises(PassError, match="more than it may"):
            check(model, LowerLinear())
        assert halves[1].numpy().tobytes() == (w / 2).tobytes()
        assert reads == [(0, 40)]
    assert halves[1].numpy().tobytes() == (w / 2).tobytes(), "the file is gone"
    assert len(reads) == 2


def test_a_graph_without_layers_is_written_out_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, serialize = [], ir.serde.serialize_model

    def counted(model: ir.Model) -> object:
        written.append(model)
        return serialize(model)

    monkeypatch.setattr(ir.serde, "serialize_model", counted)
    with NumericCheck(FEEDS, "fp32") as check:
        check.start(load(TEXT, {"table": random(50, 32), "w": random(40, 32)}))
    assert len(written) == 1


@pytest.mark.parametrize("bits", [4, 8])
def test_other_forms_of_weights_are_written_once(folder: Path, bits: int) -> None:
    """Packed for a product of 4 bits, or unsigned for one of bytes, however many graphs run."""
    model = load(TEXT, {"table": random(50, 64), "w": random(40, 64)})
    model.graph.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    (WeightInt4() if bits == 4 else WeightInt8())(model)
    if bits == 8:
        LowerLinear(lambda *_: "dynamic")(model)
    sizes = []
    with NumericCheck(FEEDS, f"int{bits}") as check:
        check.start(model)
        for _ in range(2):
            check(model, LowerSilu())
            sizes.append(next(folder.glob("*/weights.bin")).stat().st_size)
    assert sizes[0] == sizes[1]


def test_kernels_round_as_they_will_in_the_engine(folder: Path) -> None:
    """MatMulNBits of accuracy level 4 rounds what it multiplies, but only over packed weights."""
    found = {}
    for level in (1, 4):
        model = load(TEXT, {"table": random(50, 256), "w": random(40, 256)})
        with NumericCheck(FEEDS, "int4") as check:
            WeightInt4()(model)
            check.start(model)
            lower = LowerLinear(accuracy_level=level)
            lower(model)
            found[level] = check(model, lower)
    assert found[1] < 1e-5
    assert 1e-4 < found[4] < 0.03


BLOCKS = """main (int64[b, s] input_ids, int64[b, s] attention_mask) => (y) {
  x = Gather (table, input_ids)
  d = DequantizeLinear <axis = 1, block_size = 32> (q, scale)
  t = Transpose <perm = [1, 0]> (d)
  y = MatMul (x, t)
}"""


@pytest.mark.parametrize("dtype", [ir.DataType.INT4, ir.DataType.INT8])
def test_weights_that_come_quantized_count_as_what_they_are(
    folder: Path, dtype: ir.DataType
) -> None:
    """The kernels that take them round activations, whatever the recipe rounds."""
    scale = np.abs(random(40, 8, scale=0.1)) + 0.1
    model = load(BLOCKS, {"table": random(50, 256), "scale": scale})
    steps = np.random.default_rng(0).integers(-8, 8, (40, 256)).astype(np.int8)
    (read,) = (node for node in model.graph if node.op_type == "DequantizeLinear")
    weight = ir.Value(name="q", const_value=ir.Tensor(steps.astype(dtype.numpy()), dtype=dtype))
    weight.type, weight.shape = ir.TensorType(dtype), ir.Shape([40, 256])
    model.graph.register_initializer(weight)
    read.replace_input_with(0, weight)
    with NumericCheck(FEEDS, "fp32") as check:
        check.start(model)
        lower = LowerLinear()
        lower(model)
        assert lower.tolerances["fp32"].error < check(model, lower) < 0.03


def test_weights_that_a_rule_gives_fewer_bits_count_as_those(folder: Path) -> None:
    """A recipe of 8 bits whose rule says 4 of one weight failed in weight-int4."""
    model = load(TEXT, {"table": random(50, 256), "w": random(40, 256)})
    with NumericCheck(FEEDS, "int8") as check:
        check.start(model)
        quantize = WeightInt4(lambda name, embedding: None if embedding else (4, 32))
        quantize(model)
        assert quantize.tolerances["int8"].error < check(model, quantize) < 0.2


@pytest.mark.parametrize("size", [0, 1e-17])
def test_next_to_nothing_is_like_itself(folder: Path, size: float) -> None:
    """A direction was asked of numbers below 1e-15 as if the rest of them had none."""
    table = np.float32(size) * random(50, 32)
    model = load(TEXT, {"table": table, "w": random(40, 32)})
    with NumericCheck(FEEDS, "int8") as check:
        check.start(model)
        quantize = WeightInt8()
        quantize(model)
        assert check(model, quantize) <= 1e-8


@pytest.mark.parametrize("size", [1, 3, 1 << 10])
def test_directions_are_compared_a_part_at_a_time(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_AT_A_TIME", size)
    one, other = random(5, 7, seed=1), random(5, 7, seed=2)
    wanted = np.vdot(one, other) / np.linalg.norm(one) / np.linalg.norm(other)
    assert check._cosine(one, other) == pytest.approx(wanted, abs=1e-6)
    assert check._cosine(one, -one) == pytest.approx(-1)
    assert check._cosine(one, np.zeros_like(one)) == 0


def test_padding_is_not_compared(folder: Path) -> None:
    model = load(TEXT, {"table": random(50, 32), "w": random(40, 32)})
    feeds = {"input_ids": np.array([[1, 2]]), "attention_mask": np.array([[1, 0]])}
    with NumericCheck(feeds, "fp32") as check:
        check.start(model)
        other = model.graph.initializers["table"]
        changed = random(50, 32)
        changed[2] = 100
        other.const_value = ir.tensor(changed, name="table")
        assert check(model, LowerLinear()) == 0


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT16, ir.DataType.BFLOAT16])
def test_half_precision_is_checked_in_an_emulation(folder: Path, dtype: ir.DataType) -> None:
    model = load(TEXT, {"table": random(50, 32), "w": random(40, 32)})
    with NumericCheck(FEEDS, "fp32") as check:
        check.start(model)
        half = LowerHalfPrecision(dtype)
        half(model)
        assert 1e-5 < check(model, half) < half.tolerances["fp32"].error
        # What comes after may differ by a rounding, but not by more.
        assert check(model, LowerLinear()) == 0
        weight = next(v for n, v in model.graph.initializers.items() if n.startswith("w:"))
        numbers = random(40, 32, seed=1).astype(dtype.numpy())
        weight.const_value = ir.Tensor(numbers, dtype=dtype, name="w")
        with pytest.raises(PassError, match="changed the numbers"):
            check(model, LowerLinear())


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_named_before_any_pass(folder: Path, number: float) -> None:
    """The rows with such numbers are those that the sample reads."""
    table = random(50, 32)
    table[2, 5] = number
    model = load(TEXT, {"table": table, "w": random(40, 32)})
    streamed = StreamedTensor("table", ir.DataType.FLOAT, table.shape, lambda a, b: table[a:b])
    model.graph.initializers["table"].const_value = streamed
    with NumericCheck(FEEDS, "fp32") as check, pytest.raises(CheckpointError) as caught:
        check.start(model)
    assert "before any pass" in caught.value.message
    assert caught.value.found == "table"
    assert list(folder.iterdir()) == []


def test_numbers_that_overflow_are_not_blamed_on_the_weights(folder: Path) -> None:
    large = np.full((50, 32), 1e30, np.float32)
    model = load(TEXT, {"table": large, "w": np.full((40, 32), 1e30, np.float32)})
    with NumericCheck(FEEDS, "fp32") as check, pytest.raises(PassError) as caught:
        check.start(model)
    assert "its weights are finite" in caught.value.message
    assert caught.value.where == "y"


def test_only_a_few_of_many_weights_are_named(folder: Path) -> None:
    nodes = "".join(f"  y{i + 1} = Add (y{i}, c{i})\n" for i in range(10))
    head = TEXT.partition("(y)")[0]
    text = f"{head}(y10) {{\n  y0 = Gather (table, input_ids)\n{nodes}}}"
    bad = {f"c{i}": np.full(32, np.nan, np.float32) for i in range(10)}
    model = load(text, {"table": random(50, 32), **bad})
    with NumericCheck(FEEDS, "fp32") as check, pytest.raises(CheckpointError) as caught:
        check.start(model)
    assert caught.value.found == "c0, c1, c2, c3, c4, c5, c6, c7 and 2 more"


def test_where_experts_are_chosen_a_token_may_take_another() -> None:
    """As far as that moves a token, but only in passes that round, and not in any direction."""
    model, weights = experts(Settings())
    noise = random(*weights["gu"].shape, seed=9)
    with NumericCheck(routed(40), "int8") as check:
        check.start(model)

        def moved(by: float, done: LeptonPass) -> float:
            changed = ir.tensor(weights["gu"] + np.float32(by) * noise, name="gu")
            model.graph.initializers["gu"].const_value = changed
            return check(model, done)

        assert moved(0, WeightInt8()) == 0
        assert WeightInt8.tolerances["int8"].error < moved(0.022, WeightInt8()) < CHOOSING.error
        with pytest.raises(PassError, match="changed the numbers"):  # back again is as far
            moved(0, LowerSilu())
        with pytest.raises(PassError, match="changed the numbers"):
            moved(1, WeightInt8())


NO_FLOATS = """main (int64[b, s] input_ids, int64[b, s] attention_mask)
    => (large, level, place, none, y) {
  x = Gather (table, input_ids)
  two = Mul (x, factor)
  large = Less (limit, two)
  bytes = Abs (two)
  level = Cast <to = 2> (bytes)
  place = ArgMax <axis = -1> (two)
  no = Less (bytes, nought)
  none = NonZero (no)
  words = Constant <value_strings = ["a", "b"]> ()
  y = Gather (words, chosen)
}"""


@pytest.fixture
def no_floats() -> ir.Model:
    numbers = {"factor": np.float32(1), "limit": np.float32(0), "nought": np.float32(0)}
    chosen = np.array([0, 1])
    return load(NO_FLOATS, {"table": random(50, 32, scale=40), "chosen": chosen, **numbers})


def test_outputs_that_are_no_floats_are_compared(folder: Path, no_floats: ir.Model) -> None:
    """Truth, bytes, places, places of which there are none, and words."""
    with NumericCheck(FEEDS, "fp32") as check:
        check.start(no_floats)
        assert check(no_floats, LowerSilu()) == 0


@pytest.mark.parametrize(
    ("name", "changed", "output"),
    [
        ("limit", np.float32(20), "large"),
        ("factor", np.float32(2), "level"),
        ("chosen", np.array([0, 0]), "y"),
        ("nought", np.float32(10), "none"),
    ],
)
def test_of_what_is_no_float_each_entry_counts(
    folder: Path, no_floats: ir.Model, name: str, changed: np.ndarray, output: str
) -> None:
    with NumericCheck(FEEDS, "fp32") as check:
        check.start(no_floats)
        no_floats.graph.initializers[name].const_value = ir.tensor(changed, name=name)
        with pytest.raises(PassError, match="changed the numbers") as caught:
            check(no_floats, LowerSilu())
    assert str(caught.value.found).startswith(f"{output}: error")


def test_bytes_may_be_off_by_as_much_as_numbers(folder: Path, no_floats: ir.Model) -> None:
    """A byte next to another is no byte at the other end, as its own arithmetic has it."""
    with NumericCheck(FEEDS, "int8") as check:
        check.start(no_floats)
        moved = ir.tensor(np.float32(0.99), name="factor")
        no_floats.graph.initializers["factor"].const_value = moved
        assert 0 < check(no_floats, WeightInt8()) < 0.02
