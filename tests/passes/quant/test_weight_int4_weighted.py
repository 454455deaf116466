"""weight-int4-weighted."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lepton_passes.contract import Tolerance
from lepton_passes.quant.scales import importance_of, quantize_int4
from lepton_passes.quant.weight_int4 import WeightInt4
from lepton_passes.quant.weight_int4_weighted import WeightInt4Weighted, weighted_int4
from tests.passes.quant.quantizing import FEEDS, model
from tests.passes.support import check, ops, random, reasons

CLOSE4 = Tolerance(error=0.3, cosine=0.97)
LAYERS = ("layers0_up_weight", "layers1_up_weight")


def _energy(columns: int = 64, seed: int = 0) -> np.ndarray:
    return np.exp(2 * np.random.default_rng(seed).normal(size=columns))


def _cost(w: np.ndarray, found: tuple[np.ndarray, np.ndarray], energy: np.ndarray) -> float:
    q, scale = found
    wide = (q.reshape(*scale.shape, -1) * scale[..., None]).reshape(w.shape)
    return float((np.square(wide - w).sum(axis=0) * energy).sum())


def test_errors_move_to_columns_that_matter_less() -> None:
    w, energy = random(256, 64, seed=3), _energy()
    nearest, weighted = quantize_int4(w, 32), weighted_int4(w, 32, energy)
    assert _cost(w, weighted, energy) < 0.8 * _cost(w, nearest, energy)
    assert _cost(w, weighted, np.ones(64)) > _cost(w, nearest, np.ones(64))


def test_a_column_without_inputs_counts_a_little() -> None:
    importance = importance_of(np.array([0.0, 2.0, 2.0, 4.0]))
    assert importance.dtype == np.float32
    np.testing.assert_allclose(importance, [0.01, 1.0, 1.0, 2.0])
    np.testing.assert_array_equal(importance_of(np.zeros(3)), np.ones(3))


def test_layers_and_a_head_that_is_a_table() -> None:
    graph, weights = model()
    energies = {name: _energy(seed=seed) for seed, name in enumerate((*LAYERS, "table"))}
    done = check(WeightInt4Weighted(None, energies), graph, FEEDS, CLOSE4)
    assert done.fired == 3
    assert ops(graph, "block") == ["DequantizeLinear", "Transpose", "MatMul"]
    for name in energies:
        q, scale = (
            graph.graph.initializers[f"{name}_{kind}"].const_value for kind in ("q", "scale")
        )
        wanted = weighted_int4(weights[name], 32, energies[name])
        np.testing.assert_array_equal(q.numpy().astype(np.int8), wanted[0])
        np.testing.assert_array_equal(scale.numpy(), wanted[1])
        assert q.dtype == ir.DataType.INT4


def test_what_was_not_calibrated_is_left_to_rounding_to_nearest() -> None:
    graph, _ = model()
    done = check(WeightInt4Weighted(None, {LAYERS[0]: _energy()}), graph, FEEDS, CLOSE4)
    # The two layers are calls of one function: one without numbers declines for both.
    assert set(reasons(done)) == {"its input was not calibrated"}
    rest = check(WeightInt4(), graph, FEEDS, CLOSE4)
    assert done.fired + rest.fired == 3


def test_refuses_columns_that_no_group_divides() -> None:
    graph, _ = model(width=40)
    energies = {name: _energy(40) for name in (*LAYERS, "table")}
    done = check(WeightInt4Weighted(None, energies), graph, FEEDS, CLOSE4)
    assert set(reasons(done)) == {"40 columns are no multiple of 16"}
