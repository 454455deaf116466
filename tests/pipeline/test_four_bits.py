"""Products of 4 bits in a check: as they are stored, in fp32, packed once."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_compile.pipeline.lean_graph import lean
from tests.passes.support import LAYER, load, ops, random, run

TEXT = """main (float[b, s, {columns}] x) => (float[b, s, rows] y) {{
  w = DequantizeLinear <axis = {axis}, block_size = {size}> (q, s{zero})
  t = Transpose <perm = [1, 0]> (w)
  y = MatMul (x, t)
}}"""
ROUNDING = 2e-6
"""Of the sum of magnitudes: products in fp32, added in another order."""


def _drawn(shape: tuple[int, ...], seed: int = 0, kind: str = "INT4") -> ir.Tensor:
    low = -8 if kind == "INT4" else 0
    numbers = np.random.default_rng(seed).integers(low, low + 16, shape)
    return ir.tensor(numbers.tolist(), ir.DataType[kind])


def _product(
    rows: int, columns: int, size: int, *, axis: int = 1, kind: str = "INT4", zero: bool = False
) -> ir.Model:
    blocks = [rows, columns]
    blocks[axis] = -(-blocks[axis] // size)
    weights = {"q": _drawn((rows, columns), kind=kind), "s": random(*blocks)}
    text = TEXT.format(columns=columns, axis=axis, size=size, zero=", z" if zero else "")
    return load(text, weights | ({"z": _drawn(tuple(blocks), 1, kind)} if zero else {}))


@given(
    rows=st.integers(1, 40),
    blocks=st.integers(1, 5),
    size=st.sampled_from([16, 32, 64, 128, 256]),
    tokens=st.integers(1, 9),
)
def test_a_product_takes_them_as_they_are_stored(
    rows: int, blocks: int, size: int, tokens: int
) -> None:
    graph = _product(rows, blocks * size, size)
    feeds = {"x": random(2, tokens, blocks * size)}
    wanted = run(graph, feeds)[0]
    made = lean(graph)
    assert ops(made) == ["MatMulNBits"]
    assert ops(graph) == ["DequantizeLinear", "Transpose", "MatMul"], "the graph is as it was"
    reach = 8 * np.abs(random(rows, blocks)).max() * np.abs(feeds["x"]).sum(-1).max()
    np.testing.assert_allclose(run(made, feeds)[0], wanted, rtol=0, atol=ROUNDING * reach)


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(_product(24, 64, 8), id="blocks of 8"),
        pytest.param(_product(24, 96, 48), id="blocks of 48"),
        pytest.param(_product(24, 80, 32), id="a last block of 16"),
        pytest.param(_product(32, 64, 16, axis=0), id="blocks of a column"),
        pytest.param(_product(24, 64, 32, kind="UINT4"), id="unsigned"),
        pytest.param(_product(24, 64, 32, zero=True), id="another zero"),
    ],
)
def test_what_the_op_does_not_take_is_dequantized(graph: ir.Model) -> None:
    feeds = {"x": random(1, 3, int(graph.graph.inputs[0].shape[2]))}
    wanted = run(graph, feeds)[0]
    made = lean(graph)
    assert ops(made) == ["DequantizeLinear", "FusedMatMul"]
    np.testing.assert_allclose(run(made, feeds)[0], wanted, rtol=1e-5, atol=1e-4)


def test_scales_that_are_no_weights_are_dequantized_with() -> None:
    text = TEXT.format(columns=64, axis=1, size=32, zero="").replace("x)", "x, float[24, 2] s)")
    made = lean(load(text, {"q": _drawn((24, 64))}))
    assert ops(made) == ["DequantizeLinear", "FusedMatMul"]


@pytest.mark.parametrize(("rows", "packs"), [(8, True), (9, False)])
def test_much_in_fp32_beside_is_not_packed_for_their_sake(rows: int, packs: bool) -> None:
    """A session packs all weights or none. The scales, a 32nd of the integers, count as well."""
    text = """main (float[b, 64] x) => (float[b, n] y) {
      w = DequantizeLinear <axis = 1, block_size = 32> (q, s)
      t = Transpose <perm = [1, 0]> (w)
      z = Gemm (x, v)
      y = MatMul (x, t)
    }"""
    weights = {"q": _drawn((64, 64)), "s": random(64, 2), "v": random(64, rows - 2)}
    made = lean(load(text, weights))
    assert ("MatMulNBits" in ops(made)) == packs


def test_tables_that_are_looked_up_alone_are_not_packed() -> None:
    text = """main (int64[b] ids) => (float[b, 24] y) {
      x = Gather (e, ids)
      w = DequantizeLinear <axis = 1, block_size = 32> (q, s)
      t = Transpose <perm = [1, 0]> (w)
      y = MatMul (x, t)
    }"""
    weights = {"q": _drawn((24, 64)), "s": random(24, 2), "e": random(100, 64)}
    assert ops(lean(load(text, weights))) == ["Gather", "MatMulNBits"]


def test_each_layer_has_its_own() -> None:
    graph = load(
        f"""main (float[b, 64] x) => (z) {{
          y = ai.lepton.layer.Layer (x, q0, s0)
          z = ai.lepton.layer.Layer (y, q1, s1)
        }}
        {LAYER} Layer (x, q, s) => (y) {{
          w = DequantizeLinear <axis = 1, block_size = 32> (q, s)
          t = Transpose <perm = [1, 0]> (w)
          y = MatMul (x, t)
        }}""",
        {
            **{f"q{n}": _drawn((64, 64), n) for n in range(2)},
            **{f"s{n}": random(64, 2) for n in range(2)},
        },
    )
    (function,) = graph.functions.values()
    for value, kind in zip(function.inputs[1:], (ir.DataType.INT4, ir.DataType.FLOAT), strict=True):
        value.type = ir.TensorType(kind)
    function[0].outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    feeds = {"x": random(3, 64)}
    wanted = run(graph, feeds)[0]
    made = lean(graph)
    assert ops(made, "Layer") == ["MatMulNBits"]
    np.testing.assert_allclose(run(made, feeds)[0], wanted, rtol=1e-4, atol=1e-4 * 64)
