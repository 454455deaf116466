"""weight-int4-gptq: the algorithm, then the pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_passes.contract import Tolerance
from lepton_passes.quant.scales import MORE_LEVELS, quantize_int4
from lepton_passes.quant.weight_int4 import WeightInt4
from lepton_passes.quant.weight_int4_gptq import (
    WeightInt4Gptq,
    column_order,
    gptq,
    inverse_factor,
)
from tests.passes.quant.quantizing import FEEDS, model
from tests.passes.support import check, ops, random, reasons

# The sample of the tests is not what the layers read, so outputs move further than they need.
CLOSE4 = Tolerance(error=0.5, cosine=0.9)
LAYERS = ("layers0_up_weight", "layers1_up_weight")


def _inputs(rows: int, columns: int, seed: int) -> np.ndarray:
    """Correlated, and of very different sizes."""
    draw = np.random.default_rng(seed)
    mixed = draw.normal(size=(rows, columns // 2)) @ draw.normal(size=(columns // 2, columns))
    return (mixed * np.exp(draw.normal(size=columns))).astype(np.float32)


def _wide(q: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return (q.reshape(*scale.shape, -1) * scale[..., None]).reshape(q.shape)


def _error(w: np.ndarray, found: tuple[np.ndarray, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Squared error of each output on the sample."""
    return (((w - _wide(*found)) @ x.T) ** 2).sum(axis=1)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 9),
    st.sampled_from([(32, 32), (96, 32), (128, 64), (48, 16)]),
    st.integers(1, 200),
    st.integers(0, 10_000),
    st.booleans(),
)
def test_no_row_is_worse_than_rounded_to_nearest(
    rows: int, shape: tuple[int, int], seen: int, seed: int, ordered: bool
) -> None:
    columns, group = shape
    w, x = random(rows, columns, seed=seed), _inputs(seen, columns, seed)
    hessian = x.T @ x
    order = column_order(hessian) if ordered else None
    found = gptq(w, hessian, group, order=order)
    nearest = _error(w, quantize_int4(w, group), x)
    assert (_error(w, found, x) <= nearest * (1 + 1e-3) + 1e-4 * nearest.max()).all()
    assert found[0].min() >= -8
    assert found[0].max() <= 7


def test_errors_are_made_up_for() -> None:
    w, x = random(64, 128, seed=1), _inputs(512, 128, seed=2)
    hessian = x.T @ x
    nearest = _error(w, quantize_int4(w, 32), x).sum()
    plain = _error(w, gptq(w, hessian, 32), x).sum()
    ordered = _error(w, gptq(w, hessian, 32, order=column_order(hessian)), x).sum()
    assert plain < 0.7 * nearest
    assert ordered < 0.7 * nearest


@pytest.mark.parametrize("ordered", [False, True])
def test_independent_inputs_of_one_size_leave_rounding_to_nearest(ordered: bool) -> None:
    w, hessian = random(16, 64, seed=3), 7 * np.eye(64, dtype=np.float32)
    order = column_order(hessian)[::-1] if ordered else None
    q, scale = gptq(w, hessian, 32, order=order)
    wide = np.repeat(scale, 32, axis=1)
    np.testing.assert_array_equal(q, np.clip(np.rint(w / wide), -8, 7))
    np.testing.assert_allclose(scale, quantize_int4(w, 32, MORE_LEVELS)[1], rtol=1e-5)


@pytest.mark.parametrize("width", [32, 77, 192])  # whole, and in halves that are not alike
def test_the_factor_is_that_of_the_inverse(width: int) -> None:
    x = _inputs(300, width, seed=4)
    hessian = x.T @ x
    order = column_order(hessian)
    factor = inverse_factor(hessian, order).astype(np.float64)
    assert np.array_equal(factor, np.triu(factor))
    damped = hessian.astype(np.float64) + 0.01 * np.trace(hessian) / width * np.eye(width)
    wanted = np.linalg.inv(damped[np.ix_(order, order)])
    np.testing.assert_allclose(factor.T @ factor, wanted, rtol=1e-3, atol=1e-5 * wanted.max())


def test_columns_without_inputs_and_zeros_are_fine() -> None:
    x = _inputs(40, 64, seed=5)
    x[:, 8:40] = 0
    w = random(4, 64, seed=6)
    w[1] = 0
    q, scale = gptq(w, x.T @ x, 32)
    assert np.isfinite(scale).all()
    assert not q[1].any()
    q, _ = gptq(w, np.zeros((64, 64), np.float32), 32)
    assert np.abs(_wide(q, scale) - w).max() < np.abs(w).max()


def test_inputs_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(ValueError, match="not finite"):
        gptq(random(2, 32), np.full((32, 32), np.nan, np.float32), 32)


class _Counting(Mapping[str, np.ndarray]):
    """Matrices of the layers of the test model, counting what is taken."""

    def __init__(self, width: int = 64) -> None:
        x = _inputs(200, width, seed=7)
        self.matrix, self.taken = x.T @ x, list[str]()

    def __getitem__(self, name: str) -> np.ndarray:
        self.taken.append(name)
        return self.matrix

    def __contains__(self, name: object) -> bool:
        return name in LAYERS

    def __iter__(self) -> Iterator[str]:
        return iter(LAYERS)

    def __len__(self) -> int:
        return len(LAYERS)


def test_layers_are_fitted_and_the_tied_table_is_left() -> None:
    graph, weights = model()
    hessians = _Counting()
    done = check(WeightInt4Gptq(hessians=hessians), graph, FEEDS, CLOSE4)
    assert done.fired == 2
    assert ops(graph, "block") == ["DequantizeLinear", "Transpose", "MatMul"]
    assert set(reasons(done)) == {
        "it is a table whose rows are looked up, and no sample weighs them"
    }
    rest = check(WeightInt4(), graph, FEEDS, CLOSE4)
    assert rest.fired == 1
    for name in LAYERS:
        q, scale = (graph.graph.initializers[f"{name}_{k}"].const_value for k in ("q", "scale"))
        assert q.dtype == ir.DataType.INT4
        order = column_order(hessians.matrix)
        wanted = gptq(weights[name], hessians.matrix, 32, order=order)
        np.testing.assert_array_equal(q.numpy().astype(np.int8), wanted[0])
        np.testing.assert_array_equal(scale.numpy(), wanted[1])


def test_a_weight_is_computed_once_and_only_when_it_is_read() -> None:
    graph, _ = model()
    hessians = _Counting()
    WeightInt4Gptq(hessians=hessians)(graph)
    assert hessians.taken == []
    q, scale = (
        graph.graph.initializers[f"{LAYERS[0]}_{kind}"].const_value for kind in ("q", "scale")
    )
    first = scale.numpy()
    assert q.tobytes() == q.tobytes()
    np.testing.assert_array_equal(q.rows(5, 9), q.numpy()[5:9])
    np.testing.assert_array_equal(scale.numpy(), first)
    assert hessians.taken == [LAYERS[0]]


def test_blocks_of_rows_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = (_quantized(), _quantized(monkeypatch))
    np.testing.assert_array_equal(parts.numpy(), whole.numpy())
    np.testing.assert_array_equal(parts.rows(9, 31), whole.numpy()[9:31])


def _quantized(monkeypatch: pytest.MonkeyPatch | None = None) -> ir.TensorProtocol:
    if monkeypatch is not None:
        monkeypatch.setattr("lepton_passes.quant.weight_int4_gptq._ROW_ELEMENTS", 64 * 10)
    graph, _ = model()
    WeightInt4Gptq(hessians=_Counting())(graph)
    tensor = graph.graph.initializers[f"{LAYERS[1]}_q"].const_value
    tensor.numpy()
    return tensor


def test_refuses_what_was_not_calibrated() -> None:
    graph, _ = model()
    done = check(WeightInt4Gptq(), graph, FEEDS, CLOSE4)
    assert done.fired == 0
    assert "its input was not calibrated" in reasons(done)


def test_refuses_columns_that_no_group_divides() -> None:
    graph, _ = model(width=40)
    done = check(WeightInt4Gptq(hessians=_Counting(40)), graph, FEEDS, CLOSE4)
    assert "40 columns are no multiple of 16" in reasons(done)
    assert done.fired == 0
