"""Tables of the check: not turned over, not dequantized whole, and the same numbers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_compile.pipeline import lean_graph
from lepton_compile.pipeline.lean_graph import in_order, lean
from tests.passes.support import LAYER, load, ops, random, run

TIED = """main (int64[b, s] ids) => (float[b, s, 40] y) {
  x = Gather (w, ids)
  t = Transpose <perm = [1, 0]> (w)
  y = MatMul (x, t)
}"""
IDS = {"ids": np.array([[3, 0, 39], [7, 7, 1]])}


def _table_of_bytes(size: int) -> ir.Model:
    """``TIED`` with a table of int8: a scale for each ``size`` columns, or 0 for one a row."""
    q = np.random.default_rng(0).integers(-127, 128, (40, 64), np.int8)
    how = f"axis = 1, block_size = {size}" if size else "axis = 0"
    text = TIED.replace("x =", f"w = DequantizeLinear <{how}> (q, s)\n x =")
    return load(text, {"q": q, "s": random(40, 2) if size else random(40)})


def _table_of_four_bits(axis: int, size: int) -> ir.Model:
    """``TIED`` with a table of int4: a scale for each ``size`` numbers along an axis."""
    q = np.random.default_rng(0).integers(-8, 8, (40, 64))
    how = f"axis = {axis}, block_size = {size}"
    text = TIED.replace("x =", f"w = DequantizeLinear <{how}> (q, s)\n x =")
    scales = [n // size if at == axis else n for at, n in enumerate(q.shape)]
    return load(text, {"q": ir.tensor(q.tolist(), ir.DataType.INT4), "s": random(*scales)})


def test_a_matrix_that_is_turned_over_is_taken_as_it_lies() -> None:
    graph = load(TIED, {"w": random(40, 64)})
    wanted = run(graph, IDS)[0]
    made = lean(graph)
    assert ops(made) == ["Gather", "FusedMatMul"]
    assert ops(graph) == ["Gather", "Transpose", "MatMul"], "the graph itself is as it was"
    np.testing.assert_allclose(run(made, IDS)[0], wanted, rtol=1e-5, atol=1e-4)


def test_rows_of_four_bits_are_looked_up_before_they_are_dequantized() -> None:
    graph = _table_of_four_bits(1, 32)
    wanted = run(graph, IDS)[0]
    made = lean(graph)
    assert ops(made) == ["GatherBlockQuantized", "MatMulNBits"]
    assert ops(graph) == ["DequantizeLinear", "Gather", "Transpose", "MatMul"]
    np.testing.assert_allclose(run(made, IDS)[0], wanted, rtol=1e-5, atol=1e-4)


def test_a_table_that_is_no_head_is_looked_up_as_well() -> None:
    text = """main (int64[b, s] ids) => (float[b, s, 64] y) {
      w = DequantizeLinear <axis = 1, block_size = 16> (q, s)
      y = Gather (w, ids)
    }"""
    q = np.random.default_rng(0).integers(-8, 8, (40, 64))
    graph = load(text, {"q": ir.tensor(q.tolist(), ir.DataType.INT4), "s": random(40, 4)})
    made = lean(graph)
    assert ops(made) == ["GatherBlockQuantized"]
    np.testing.assert_array_equal(run(made, IDS)[0], run(graph, IDS)[0])


def test_four_bits_by_blocks_of_a_column_are_left_alone() -> None:
    graph = _table_of_four_bits(0, 20)
    wanted = run(graph, IDS)[0]
    made = lean(graph)
    assert ops(made) == ["DequantizeLinear", "Gather", "FusedMatMul"]
    np.testing.assert_allclose(run(made, IDS)[0], wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("size", [0, 32])
def test_rows_of_bytes_are_looked_up_before_they_are_dequantized(size: int) -> None:
    graph = _table_of_bytes(size)
    wanted = run(graph, IDS)[0]
    made = lean(graph)
    rows = ["Gather", "Gather", *([] if size else ["Unsqueeze"]), "DequantizeLinear"]
    assert ops(made) == ["DequantizeLinear", *rows, "FusedMatMul"]
    np.testing.assert_allclose(run(made, IDS)[0], wanted, rtol=1e-5, atol=1e-4)


def test_layers_are_lean_too() -> None:
    graph = load(
        f"""main (float[b, s, 32] x) => (y) {{ y = ai.lepton.layer.Layer (x, w) }}
        {LAYER} Layer (x, w) => (y) {{
          t = Transpose <perm = [1, 0]> (w)
          y = MatMul (x, t)
        }}""",
        {"w": random(16, 32)},
    )
    for function in graph.functions.values():
        function.inputs[1].type = ir.TensorType(ir.DataType.FLOAT)
    feeds = {"x": random(1, 4, 32)}
    wanted = run(graph, feeds)[0]
    made = lean(graph)
    (function,) = made.functions.values()
    assert [node.op_type for node in function] == ["FusedMatMul"]
    np.testing.assert_allclose(run(made, feeds)[0], wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        # Keys, which have heads: another permutation.
        (
            """main (float[b, 2, 3, 8] x) => (y) {
              t = Transpose <perm = [0, 1, 3, 2]> (w)
              y = MatMul (x, t)
            }""",
            {"w": random(1, 2, 5, 8)},
        ),
        # No fused product in double precision.
        (
            """main (double[b, 8] x) => (double[b, 5] y) {
              t = Transpose <perm = [1, 0]> (w)
              y = MatMul (x, t)
            }""",
            {"w": random(5, 8).astype(np.float64)},
        ),
        # Bytes around another zero; columns looked up; blocks of 8.
        (
            """main (int64[b] ids) => (y) {
              t = DequantizeLinear <axis = 0> (w, s, z)
              y = Gather (t, ids)
            }""",
            {"w": np.ones((40, 64), np.int8), "s": random(40), "z": np.ones(40, np.int8)},
        ),
        # Scales of columns.
        (
            """main (int64[b] ids) => (y) {
              t = DequantizeLinear <axis = 1> (w, s)
              y = Gather (t, ids)
            }""",
            {"w": np.ones((40, 64), np.int8), "s": random(64)},
        ),
        (
            """main (int64[b] ids) => (y) {
              t = DequantizeLinear <axis = 1, block_size = 32> (w, s)
              y = Gather <axis = 1> (t, ids)
            }""",
            {"w": ir.tensor([[1] * 64] * 40, ir.DataType.INT4), "s": random(40, 2)},
        ),
        (
            """main (int64[b] ids) => (y) {
              t = DequantizeLinear <axis = 1, block_size = 8> (w, s)
              y = Gather (t, ids)
            }""",
            {"w": ir.tensor([[1] * 64] * 40, ir.DataType.INT4), "s": random(40, 8)},
        ),
        # One scale for all; to half precision; more tables than one.
        (
            """main (int64[b] ids) => (y) {
              t = DequantizeLinear <axis = 0> (w, s)
              y = Gather (t, ids)
            }""",
            {"w": np.ones((40, 64), np.int8), "s": np.array(0.5, np.float32)},
        ),
        (
            """main (int64[b] ids) => (y) {
              t = DequantizeLinear <axis = 0> (w, s)
              y = Gather (t, ids)
            }""",
            {"w": np.ones((40, 64), np.int8), "s": random(40).astype(np.float16)},
        ),
        (
            """main (int64[b] ids) => (y) {
              t = DequantizeLinear <axis = -1, block_size = 32> (w, s)
              y = Gather (t, ids)
            }""",
            {"w": ir.tensor([[[1] * 64] * 40] * 2, ir.DataType.INT4), "s": random(2, 40, 2)},
        ),
    ],
)
def test_what_is_no_such_table_stays(text: str, weights: dict[str, np.ndarray]) -> None:
    graph = load(text, weights)
    assert lean(graph) is graph


@pytest.mark.parametrize("size", [0, 32])
def test_a_product_with_many_bytes_is_made_piece_by_piece(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lean_graph, "PIECE", 64 * 16)
    graph = _table_of_bytes(size)
    wanted = run(graph, IDS)[0]
    made = lean(graph)
    assert ops(made).count("FusedMatMul") == 3
    pieces = [n.outputs[0] for n in made.graph if n.op_type == "DequantizeLinear"]
    assert len(pieces) == 4, "three of the table, and the rows that are looked up"
    np.testing.assert_allclose(run(made, IDS)[0], wanted, rtol=1e-5, atol=1e-4)
    assert ops(lean(_table_of_four_bits(0, 20))).count("FusedMatMul") == 1


def test_weights_are_dequantized_where_their_layer_is() -> None:
    text = f"""main (float[b, s, 32] x) => (float[b, s, 32] z) {{
      y = ai.lepton.layer.Layer (x, q0, s0)
      z = ai.lepton.layer.Layer (y, q1, s1)
    }}
    {LAYER} Layer (x, q, s) => (y) {{
      w = DequantizeLinear <axis = 0> (q, s)
      y = MatMul (x, w)
    }}"""
    draw = np.random.default_rng(0)
    weights = {f"q{n}": draw.integers(-127, 128, (32, 32), np.int8) for n in (0, 1)}
    graph = load(text, {**weights, "s0": random(32), "s1": random(32)})
    feeds = {"x": random(1, 4, 32)}
    wanted = run(graph, feeds)[0]
    made = in_order(graph)
    assert ops(made) == ["DequantizeLinear", "MatMul"] * 2
    assert ops(graph) == ["Layer", "Layer"], "the graph itself is as it was"
    np.testing.assert_array_equal(run(made, feeds)[0], wanted)


def test_a_graph_without_weights_to_dequantize_keeps_its_functions() -> None:
    graph = load(
        f"""main (float[b, 32] x) => (y) {{ y = ai.lepton.layer.Layer (x, w) }}
        {LAYER} Layer (x, w) => (y) {{ y = MatMul (x, w) }}""",
        {"w": random(32, 32)},
    )
    assert in_order(graph) is graph
    flat = _table_of_bytes(0)
    assert in_order(flat) is flat
