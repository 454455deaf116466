"""weight-stored."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_passes.contract import CLOSE, SAME
from lepton_passes.grouped import FloatCodes, Grouped, without_grid
from lepton_passes.quant.weight_int4 import WeightInt4
from lepton_passes.quant.weight_stored import WeightStored
from lepton_passes.tensors import StreamedTensor
from tests.passes.experts import EXPERTS, INNER, WIDTH, Settings, experts, routed
from tests.passes.quant.quantizing import FEEDS, ROWS, model
from tests.passes.quant.stored import Stored, stored_in
from tests.passes.support import check, load, ops, random, reasons

LAYERS = ("layers0_up_weight", "layers1_up_weight")
X = {"x": random(5, 128, seed=9)}


def two_layers(**kinds: object) -> tuple[ir.Model, list[Stored]]:
    """Two layers of one function, from a checkpoint with zero points."""
    graph, _ = model()
    stored = [Stored.made(64, 64, seed=seed, **kinds) for seed in (1, 2)]  # type: ignore[arg-type]
    return stored_in(graph, **dict(zip(LAYERS, stored, strict=True))), stored


def one_layer(stored: Stored | Grouped) -> ir.Model:
    text = """main (float[b, 128] x) => (y) {
      t = Transpose <perm = [1, 0]> (w)
      y = MatMul (x, t)
    }"""
    return stored_in(load(text, {"w": random(16, 128)}), w=stored)


def kept(graph: ir.Model, name: str) -> list[np.ndarray]:
    """Codes, scales, and zero points or offsets of a weight in the graph."""
    known = graph.graph.initializers
    values = [
        known[n] for part in ("q", "scale", "zero", "offset") if (n := f"{name}_{part}") in known
    ]
    tensors = [value.const_value for value in values if value.const_value is not None]
    return [t.numpy().astype(np.float32 if t.dtype == ir.DataType.FLOAT else int) for t in tensors]


@pytest.mark.parametrize(("bits", "dtype"), [(4, ir.DataType.UINT4), (8, ir.DataType.UINT8)])
def test_the_integers_of_the_checkpoint(bits: int, dtype: ir.DataType) -> None:
    graph, stored = two_layers(bits=bits)
    assert check(WeightStored(), graph, FEEDS, SAME).fired == 2
    assert ops(graph, "block") == ["DequantizeLinear", "Transpose", "MatMul"]
    assert graph.graph.initializers["layers1_up_weight_q"].dtype == dtype
    assert graph.graph.initializers["layers1_up_weight_zero"].dtype == dtype
    for name, each in zip(LAYERS, stored, strict=True):
        for found, wanted in zip(
            kept(graph, name), (each.codes, each.scales, each.shifts), strict=True
        ):
            np.testing.assert_array_equal(found, wanted)


WITH_OFFSETS = ["DequantizeLinear", "Reshape", "Add", "Reshape", "Transpose", "MatMul"]


def test_offsets_are_added_to_the_integers() -> None:
    graph, stored = two_layers(form="offsets")
    assert check(WeightStored(), graph, FEEDS, CLOSE).fired == 2
    assert [op for op in ops(graph, "block") if op != "Constant"] == WITH_OFFSETS
    for name, each in zip(LAYERS, stored, strict=True):
        codes, scales, offsets = kept(graph, name)
        np.testing.assert_array_equal(codes, each.codes)
        np.testing.assert_array_equal(scales, each.scales)
        np.testing.assert_array_equal(offsets[:, :, 0], each.shifts)


def test_floats_are_twice_as_large() -> None:
    graph, stored = two_layers(form="floats")
    assert check(WeightStored(), graph, FEEDS, SAME).fired == 2
    assert ops(graph, "block") == ["DequantizeLinear", "Transpose", "MatMul"]
    for name, each in zip(LAYERS, stored, strict=True):
        assert isinstance(graph.graph.initializers[f"{name}_q"].const_value, FloatCodes)
        codes, scales = kept(graph, name)
        np.testing.assert_array_equal(codes, each.codes)
        np.testing.assert_array_equal(scales, each.scales)


def test_eight_bits_around_the_middle_are_signed() -> None:
    graph, stored = two_layers(bits=8, zeros=(128, 128))
    assert check(WeightStored(lambda *_: (8, None)), graph, FEEDS, SAME).fired == 2
    assert ops(graph, "block") == ["DequantizeLinear", "Transpose", "MatMul"]
    codes, scales = kept(graph, LAYERS[0])
    np.testing.assert_array_equal(codes, stored[0].codes - 128)
    np.testing.assert_array_equal(scales, stored[0].scales)


def test_a_group_of_the_recipe_divides_that_of_the_checkpoint() -> None:
    stored = Stored.made(16, 128, 128)
    graph = one_layer(stored)
    assert check(WeightStored(lambda *_: (4, 32)), graph, X, SAME).fired == 1
    assert ops(graph) == ["DequantizeLinear", "Transpose", "MatMul"]
    codes, scales, zeros = kept(graph, "w")
    np.testing.assert_array_equal(codes, stored.codes)
    np.testing.assert_array_equal(scales, np.repeat(stored.scales, 4, axis=1))
    np.testing.assert_array_equal(zeros, np.repeat(stored.shifts, 4, axis=1))


OUT_OF_ORDER = ["DequantizeLinear", "Transpose", "Gather", "MatMul"]


@pytest.mark.parametrize("bits", [4, 8])
def test_columns_out_of_order_are_read_in_theirs(bits: int) -> None:
    graph, stored = two_layers(bits=bits, ordered=3)
    assert check(WeightStored(), graph, FEEDS, SAME).fired == 2
    assert ops(graph, "block") == OUT_OF_ORDER
    orders = [graph.graph.initializers[f"{name}_order"].const_value for name in LAYERS]
    for order, each in zip(orders, stored, strict=True):
        assert order is not None
        np.testing.assert_array_equal(order.numpy(), each.order)
    np.testing.assert_array_equal(kept(graph, LAYERS[0])[0], stored[0].codes)


@pytest.mark.parametrize("lacking", ["", "TensorRT"])
def test_out_of_order_the_middle_is_kept_without_zero_points(lacking: str) -> None:
    stored = Stored.made(16, 128, zeros=(8, 8), ordered=3)
    graph = one_layer(stored)
    assert check(WeightStored(lacking=lacking), graph, X, SAME).fired == 1
    assert ops(graph) == OUT_OF_ORDER
    assert graph.graph.initializers["w_q"].dtype == ir.DataType.INT4
    codes, scales = kept(graph, "w")
    np.testing.assert_array_equal(codes, stored.codes - 8)
    np.testing.assert_array_equal(scales, stored.scales)


@pytest.mark.parametrize(("seeds", "gathers"), [((3, 3), 1), ((3, 4), 2)])
def test_layers_of_one_order_read_the_same(seeds: tuple[int, int], gathers: int) -> None:
    text = """main (float[b, 128] x) => (y) {
      t = Transpose <perm = [1, 0]> (v)
      a = MatMul (x, t)
      s = Transpose <perm = [1, 0]> (w)
      b = MatMul (x, s)
      y = Add (a, b)
    }"""
    graph = load(text, {"v": random(16, 128), "w": random(16, 128)})
    one, other = (Stored.made(16, 128, seed=seed, ordered=seed) for seed in seeds)
    assert check(WeightStored(), stored_in(graph, v=one, w=other), X, SAME).fired == 2
    assert ops(graph).count("Gather") == gathers


def test_layers_of_one_function_that_differ_part() -> None:
    graph, _ = two_layers()
    stored_in(graph, layers1_up_weight=Stored.made(64, 64, 64, zeros=(3, 12)))
    assert check(WeightStored(), graph, FEEDS, SAME).fired == 2
    calls = [node for node in graph.graph if node.domain == "ai.lepton.layer"]
    assert len({node.op_type for node in calls}) == 2


def test_the_middle_is_left_to_weight_int4_which_finds_it() -> None:
    graph, stored = two_layers(zeros=(7, 8))
    choose = dict.fromkeys(LAYERS, (4, 32))
    done = check(WeightStored(lambda name, _: choose.get(name)), graph, FEEDS, SAME)
    assert (done.fired, reasons(done)) == (0, [])
    assert check(WeightInt4(lambda name, _: choose.get(name)), graph, FEEDS, CLOSE).fired == 2
    codes, scales = kept(graph, LAYERS[0])
    wide = codes.reshape(64, 2, 32) * scales[..., None]
    np.testing.assert_allclose(wide.reshape(64, 64), stored[0].values, rtol=1e-6, atol=1e-9)


def test_what_the_recipe_leaves_in_fp32_is_not_spoken_of() -> None:
    graph, _ = two_layers()
    choose = {LAYERS[0]: (4, 32)}
    done = check(WeightStored(lambda name, _: choose.get(name)), graph, FEEDS, SAME)
    assert (done.fired, reasons(done)) == (1, [])


def with_zero(point: int) -> Stored:
    stored = Stored.made(16, 128)
    stored.shifts[0, 0] = point
    return stored


def changed() -> StreamedTensor:
    source = Stored.made(16, 128).tensor()
    doubled = StreamedTensor("w", source.dtype, (16, 128), lambda a, b: 2 * source.rows(a, b))
    return without_grid(doubled, "an adapter is merged into it", source)


@pytest.mark.parametrize(
    ("stored", "given", "reason"),
    [
        (Stored.made(16, 128), {"lacking": "TensorRT"}, "TensorRT has no zero points"),
        (
            Stored.made(16, 128, bits=8, zeros=(128, 128)),
            {"lacking": "TensorRT"},
            "TensorRT has no groups of 8 bits",
        ),
        (
            Stored.made(16, 128),
            {"choose": lambda *_: (8, None)},
            "the checkpoint has 4 bits, the recipe 8",
        ),
        (
            Stored.made(16, 128),
            {"choose": lambda *_: (4, 128)},
            "the checkpoint has groups of 32 columns, the recipe of 128",
        ),
        (Stored.made(16, 128, 8), {}, "no kernel has groups of 8 columns"),
        (
            Stored.made(16, 128, zeros=(7, 8), ordered=1),
            {"lacking": "TensorRT"},
            "TensorRT has no zero points",
        ),
        (
            Stored.made(16, 128, form="offsets"),
            {"lacking": "TensorRT"},
            "TensorRT has no offsets",
        ),
        (
            Stored.made(16, 128, form="offsets"),
            {"own_forms": False},
            "onnxruntime has no offsets",
        ),
        (
            Stored.made(16, 128, form="floats"),
            {"own_forms": False},
            "onnxruntime has no floats of 4 bits",
        ),
        (
            Stored.made(16, 128, form="floats"),
            {"lacking": "TensorRT"},
            "TensorRT has no floats of 4 bits",
        ),
        (with_zero(16), {}, "16 is a zero point, and there are 16 levels"),
        (with_zero(-1), {}, "-1 is a zero point, and there are 16 levels"),
        (changed(), {}, "an adapter is merged into it"),
    ],
)
def test_refuses(stored: Stored | Grouped, given: dict[str, object], reason: str) -> None:
    graph = one_layer(stored)
    done = check(WeightStored(**given), graph, X, SAME)  # type: ignore[arg-type]
    assert (done.fired, reasons(done)) == (0, [f"rounded again: {reason}"])
    assert ops(graph) == ["Transpose", "MatMul"]


def test_refuses_what_no_format_takes() -> None:
    graph, _ = model("logits = Identity (h)")
    stored_in(graph, table=Stored.made(ROWS, 64))
    small = load("main (int64[b] ids) => (y) { y = Gather (w, ids) }", {"w": random(64, 32)})
    other = load(
        """main (float[b, 64] x) => (y, z) {
          t = Transpose <perm = [1, 0]> (w)
          y = MatMul (x, t)
          z = Abs (w)
        }""",
        {"w": random(16, 64)},
    )
    stored_in(small, w=Stored.made(64, 32))
    stored_in(other, w=Stored.made(16, 64))
    assert check(WeightStored(), graph, FEEDS, SAME).fired == 1  # a table of many rows
    found = []
    for each, feeds in ((small, {"ids": np.array([3])}), (other, {"x": random(2, 64)})):
        done = check(WeightStored(), each, feeds, SAME)
        assert done.fired == 0
        found += reasons(done)
    assert found == ["a table of 64 rows is not worth it", "the weight is also read by Abs"]


def test_refuses_a_table_out_of_order() -> None:
    graph, _ = model("logits = Identity (h)")
    stored_in(graph, table=Stored.made(ROWS, 64, ordered=1))
    done = check(WeightStored(), graph, FEEDS, SAME)
    reason = "its columns are out of order (act-order), and it is no layer's alone"
    assert (done.fired, reasons(done)) == (0, [f"rounded again: {reason}"])
    assert "DequantizeLinear" not in ops(graph)


def test_refuses_a_table_with_offsets() -> None:
    graph, _ = model("logits = Identity (h)")
    stored_in(graph, table=Stored.made(ROWS, 64, form="offsets"))
    done = check(WeightStored(), graph, FEEDS, SAME)
    reason = "rounded again: no kernel looks rows up that have offsets"
    assert (done.fired, reasons(done)) == (0, [reason])
    assert "DequantizeLinear" not in ops(graph)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 9),
    groups=st.integers(1, 5),
    group=st.sampled_from([32, 64, 128]),
    bits=st.sampled_from([4, 8]),
    seed=st.integers(0, 99),
)
def test_bytes_are_the_integers(rows: int, groups: int, group: int, bits: int, seed: int) -> None:
    """What is written is low nibble first, across rows, and says the numbers that were stored."""
    stored = Stored.made(rows, groups * group, group, bits=bits, seed=seed)
    grid = stored.tensor().grid()
    assert not isinstance(grid, str)
    for tensor, wanted in ((grid.codes, stored.codes), (grid.zero_points(), stored.shifts)):
        data = np.frombuffer(tensor.tobytes(), np.uint8)
        if bits == 4:
            data = np.stack([data & 15, data >> 4], axis=1).reshape(-1)[: wanted.size]
        np.testing.assert_array_equal(data.reshape(wanted.shape), wanted)
    finer = grid.in_groups_of(16)
    assert (finer.group, finer.scales.shape.numpy()) == (16, (rows, groups * group // 16))
    np.testing.assert_array_equal(
        finer.shifts.rows(rows - 1, rows).reshape(groups, -1)[:, 0], stored.shifts[-1]
    )


GATE_UP, DOWN = EXPERTS * 2 * INNER, EXPERTS * WIDTH


def mixture(gate_up: Stored | Grouped, down: Stored | Grouped) -> ir.Model:
    graph, _ = experts(Settings())
    return stored_in(graph, gu=gate_up, dn=down)


@pytest.mark.parametrize("zeros", [None, (7, 8)])  # of down: weight-int4 would find its levels
def test_both_matrices_of_experts_are_kept(zeros: tuple[int, int] | None) -> None:
    one, other = Stored.made(GATE_UP, WIDTH), Stored.made(DOWN, INNER, zeros=zeros, seed=1)
    graph = mixture(one, other)
    assert check(WeightStored(), graph, routed(7), SAME).fired == 2
    assert ops(graph, "block") == ["DequantizeLinear", "DequantizeLinear", "Experts"]
    for name, stored in (("gu", one), ("dn", other)):
        for found, wanted in zip(
            kept(graph, name), (stored.codes, stored.scales, stored.shifts), strict=True
        ):
            np.testing.assert_array_equal(found, wanted)


def test_experts_around_the_middle_are_left_to_weight_int4() -> None:
    graph = mixture(
        Stored.made(GATE_UP, WIDTH, zeros=(7, 8)), Stored.made(DOWN, INNER, zeros=(8, 8))
    )
    done = check(WeightStored(), graph, routed(7), SAME)
    assert (done.fired, reasons(done)) == (0, [])


GROUPS = "the two matrices of its experts are in other groups than each other"


@pytest.mark.parametrize(
    ("down", "found"),
    [
        (Stored.made(DOWN, INNER, 64), [GROUPS, GROUPS]),
        (Stored.made(DOWN, INNER, 8), ["no kernel has groups of 8 columns"] * 2),
    ],
)
def test_refuses_experts_of_which_one_matrix_cannot_be_kept(down: Stored, found: list[str]) -> None:
    done = check(WeightStored(), mixture(Stored.made(GATE_UP, WIDTH), down), routed(7), SAME)
    assert (done.fired, reasons(done)) == (0, [f"rounded again: {each}" for each in found])


def test_refuses_experts_of_which_one_matrix_has_no_integers() -> None:
    graph, _ = experts(Settings())
    stored_in(graph, gu=Stored.made(GATE_UP, WIDTH))
    done = check(WeightStored(), graph, routed(7), SAME)
    reason = "rounded again: the other matrix of its experts has no integers"
    assert (done.fired, reasons(done)) == (0, [reason])
