"""scale-inputs: the graph computes the same, and rounding it loses less."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_compile.pipeline.calibrate import observe
from lepton_compile.pipeline.energies import Energies
from lepton_passes.contract import CLOSE
from lepton_passes.quant import scale_inputs
from lepton_passes.quant.scale_inputs import STEPS, ScaleInputs
from lepton_passes.quant.scaled import ScaledEnergies
from lepton_passes.quant.weight_int4 import WeightInt4
from lepton_passes.quant.weight_int4_weighted import WeightInt4Weighted
from lepton_passes.tensors import rows_of
from tests.passes.experts import routed, scored
from tests.passes.quant.quantizing import FEEDS as TIED_FEEDS
from tests.passes.quant.quantizing import model as tied
from tests.passes.quant.scaling import (
    ATTENTION,
    FEEDS,
    GATED,
    HEAD,
    INNER,
    LINEARS,
    NORM,
    VALUE,
    WIDTH,
    energies,
    model,
    weights,
)
from tests.passes.support import Counted, check, load, ops, random, reasons

NORMS = ["layers0_norm", "layers0_norm2", "layers1_norm", "layers1_norm2"]
LAYERS = [f"layers{n}_{name}" for n in (0, 1) for name in LINEARS]


def _initializer(graph: ir.Model, name: str) -> np.ndarray:
    tensor = graph.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def test_the_graph_computes_the_same_with_the_same_ops() -> None:
    graph = model()
    before = [ops(graph), ops(graph, "block")]
    done = check(ScaleInputs(None, energies(graph)), graph, FEEDS, CLOSE)
    assert (done.fired, reasons(done)) == (2 * 7 + 1, [])
    assert [ops(graph), ops(graph, "block")] == before


def test_norms_and_weights_take_one_factor_each_way() -> None:
    graph, plain = model(), weights()
    ScaleInputs(None, energies(graph))(graph)
    factors = plain["layers1_norm"] / _initializer(graph, "layers1_norm:divided")
    steps = STEPS * np.log2(factors)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    assert np.ptp(steps) >= STEPS / 2
    for name in ("wq", "wk"):
        scaled = _initializer(graph, f"layers1_{name}:scaled")
        np.testing.assert_allclose(scaled, plain[f"layers1_{name}"] * factors, rtol=1e-5)
    # Rows of v make up for columns of o, where two heads of queries read one of values.
    rows = plain["layers1_v_bias"] / _initializer(graph, "layers1_v_bias:divided")
    columns = _initializer(graph, "layers1_wo:scaled") / plain["layers1_wo"]
    wanted = np.repeat(rows.reshape(2, HEAD), 2, axis=0).reshape(-1)
    np.testing.assert_allclose(columns, np.tile(wanted, (WIDTH, 1)), rtol=1e-4)


def test_rounding_loses_less_afterwards() -> None:
    """Of each product, on what the layers of the fp32 graph really read."""
    read = observe(model(), [FEEDS], _Rows)
    lost = {}
    for scaled in (True, False):
        graph = model()
        seen = energies(graph)
        passes = [ScaleInputs(None, seen)] if scaled else []
        for each in (*passes, WeightInt4Weighted(None, seen)):
            each(graph)
        assert each.fired == 15
        lost[scaled] = np.array([_lost(graph, seen, name, read[name].x) for name in LAYERS])
    assert (lost[True] < 1.1 * lost[False]).all()
    assert lost[True].mean() < 0.9 * lost[False].mean()


def _lost(graph: ir.Model, seen: ScaledEnergies, name: str, x: np.ndarray) -> float:
    """Squared error of the products of a weight as it is stored now, over their squares."""
    stored = [n for n in graph.graph.initializers if n.endswith("_q")]
    (kept,) = (n for n in stored if n.removesuffix("_q").split(":")[0] == name)
    q, scale = _initializer(graph, kept), _initializer(graph, f"{kept[:-2]}_scale")
    wide = q.astype(np.float32).reshape(*scale.shape, -1) * scale[..., None]
    factors = np.sqrt(seen.before[name] / seen[name])
    rows = weights()[name]
    found = wide.reshape(rows.shape) / factors
    if ":divided" in kept:
        found *= np.linalg.norm(rows, axis=1, keepdims=True) / np.linalg.norm(
            found, axis=1, keepdims=True
        )
    wanted = x @ rows.T
    return float(np.square(x @ found.T - wanted).sum() / np.square(wanted).sum())


class _Rows:
    """Keeps what a layer reads."""

    def __init__(self) -> None:
        self.x = np.zeros((0, 0), dtype=np.float32)

    def see(self, rows: np.ndarray) -> None:
        self.x = rows.reshape(-1, rows.shape[-1]).copy()


def test_energies_follow_the_inputs() -> None:
    graph = model()
    seen = energies(graph)
    ScaleInputs(None, seen)(graph)
    measured = Energies(graph, lambda: [FEEDS])
    assert sorted(seen) == sorted([*LAYERS, "head"])
    for name in LAYERS:
        np.testing.assert_allclose(seen[name], measured[name], rtol=2e-3)
    assert any(not np.allclose(seen[name], seen.before[name], rtol=0.1) for name in LAYERS)


@given(
    st.sampled_from([(4, 4), (4, 2), (4, 1), (6, 3)]),
    st.integers(0, 1000),
    st.sampled_from([NORM, "n1 = LayerNormalization <axis = -1> (x, norm)"]),
    st.sampled_from([VALUE, "vy = MatMul (n1, wvt)"]),
    st.sampled_from([GATED, "g = Sigmoid (gm)\n w = Mul (gm, g)\n d = Mul (uy, w)"]),
)
@settings(max_examples=15, deadline=None)
def test_any_layer_computes_the_same(
    heads: tuple[int, int], seed: int, norm: str, value: str, gated: str
) -> None:
    graph = model(heads, seed, norm=norm, value=value, gated=gated)
    done = check(ScaleInputs(None, energies(graph)), graph, FEEDS, CLOSE)
    assert (done.fired, reasons(done)) == (15, [])


def test_pieces_of_packed_projections_are_divided_alone() -> None:
    text = f"""main (float[b, s, {WIDTH}] x) => (float[b, s, {WIDTH}] y) {{
      n = RMSNormalization <axis = -1> (x, norm)
      pt = Transpose <perm = [1, 0]> (packed)
      m = MatMul (n, pt)
      both = Add (m, bias)
      sizes = Constant <value_ints = [{INNER}, {INNER}]> ()
      gate, up = Split <axis = -1> (both, sizes)
      g = Relu (gate)
      d = Mul (g, up)
      dt = Transpose <perm = [1, 0]> (down)
      y = MatMul (d, dt)
    }}"""
    arrays = {
        "norm": np.exp(random(WIDTH)),
        "packed": random(2 * INNER, WIDTH, seed=1, scale=0.12),
        "bias": random(2 * INNER, seed=2),
        "down": random(WIDTH, INNER, seed=3) * np.exp(random(INNER, seed=4)),
    }
    graph, feeds = load(text, arrays), {"x": FEEDS["x"]}
    done = check(ScaleInputs(None, energies(graph, feeds)), graph, feeds, CLOSE)
    assert (done.fired, reasons(done)) == (2, [])
    divided = _initializer(graph, "bias:divided")
    np.testing.assert_array_equal(divided[:INNER], arrays["bias"][:INNER])
    assert np.ptp(divided[INNER:] / arrays["bias"][INNER:]) > 0.5


def _for(bits: Callable[[str], int | None]) -> Callable[[str, bool], Any]:
    return lambda name, _table: None if bits(name) is None else (bits(name), None)


def test_who_reads_with_8_bits_goes_along() -> None:
    graph, plain = model(), weights()
    choose = _for(lambda name: 8 if name.endswith("wv") else 4)
    done = check(ScaleInputs(choose, energies(graph)), graph, FEEDS, CLOSE)
    assert done.fired == 15
    by = _initializer(graph, "layers0_wq:scaled") / plain["layers0_wq"]
    columns = _initializer(graph, "layers0_wv:scaled:divided") / plain["layers0_wv"]
    # v is divided by rows for o, too: in each row the columns keep their proportions.
    np.testing.assert_allclose(columns / columns[:, :1], by[: 2 * HEAD] / by[:1, :1], rtol=1e-4)


def test_a_layer_without_4_bits_keeps_its_numbers() -> None:
    graph, plain = model(), weights()
    choose = _for(lambda name: 4 if name.startswith("layers1") else 8)
    done = check(ScaleInputs(choose, energies(graph)), graph, FEEDS, CLOSE)
    assert done.fired == 14
    np.testing.assert_array_equal(_initializer(graph, "layers0_wq:scaled"), plain["layers0_wq"])
    assert np.ptp(_initializer(graph, "layers1_wq:scaled") / plain["layers1_wq"]) > 0.5


@pytest.mark.parametrize("bits", [8, None])
def test_nothing_happens_where_nothing_gets_4_bits(bits: int | None) -> None:
    graph = model()
    done = check(ScaleInputs(_for(lambda _: bits), energies(graph)), graph, FEEDS, CLOSE)
    assert (done.fired, reasons(done)) == (0, [])


def test_channels_without_inputs_are_finite() -> None:
    graph = model()
    nothing = {name: np.zeros_like(each) for name, each in energies(graph).items()}
    check(ScaleInputs(None, ScaledEnergies(nothing)), graph, FEEDS, CLOSE)
    some = {name: np.where(np.arange(len(e)) % 7, e, 0) for name, e in energies(model()).items()}
    check(ScaleInputs(None, ScaledEnergies(some)), model(), FEEDS, CLOSE)


def test_layers_of_the_same_weights_stay_one() -> None:
    """A model that calls one layer again and again, as ALBERT does."""
    graph = model()
    first, second = (n for n in graph.graph if n.op_type == "block")
    for index in range(2, len(first.inputs)):
        second.replace_input_with(index, first.inputs[index])
    done = check(ScaleInputs(None, energies(graph)), graph, FEEDS, CLOSE)
    assert (done.fired, reasons(done)) == (15, [])
    first, second = (n for n in graph.graph if n.op_type == "block")
    assert list(first.inputs)[2:] == list(second.inputs)[2:]


def test_no_row_is_read_by_the_pass_itself() -> None:
    graph, weight = model(), Counted(INNER, WIDTH)
    graph.graph.initializers["layers0_up"].const_value = weight.tensor()
    seen = ScaledEnergies({n: np.square(random(e.size)) for n, e in energies(model()).items()})
    ScaleInputs(None, seen)(graph)
    assert weight.rows_read == 0
    made = graph.graph.initializers["layers0_up:scaled:divided"].const_value
    assert made is not None
    made.numpy()
    read = weight.rows_read
    made.numpy()
    assert weight.rows_read == read + INNER  # factors are found once


@pytest.mark.parametrize(("small", "read"), [(1 << 22, 1000), (0, 256)])
def test_some_rows_from_all_over_tell_of_a_large_weight(
    small: int, read: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a small one are read at once."""
    monkeypatch.setattr(scale_inputs, "_SMALL", small)
    weight = Counted(1000, 8)
    found = scale_inputs._some_rows(weight.tensor())
    assert weight.rows_read == read
    numbers = [np.flatnonzero((weight.w == row).all(axis=1))[0] for row in found]
    slices = np.array(numbers).reshape(8, 32)
    assert (np.diff(slices) == 1).all()
    assert (numbers[0], numbers[-1]) == (0, 999)
    assert np.ptp(np.diff(slices[:, 0])) <= 1


@pytest.mark.parametrize("shape", [(12,), (12, 3)])
@pytest.mark.parametrize("cuts", [[0, 12], [0, 3, 12], [0, 4, 9, 12], [0, 6, 7, 12]])
def test_rows_are_divided_wherever_they_are_cut(shape: tuple[int, ...], cuts: list[int]) -> None:
    """Those of values, of queries, keys and values in one matrix that is read a part at a time."""
    rows, factors = random(*shape), np.array([0.5, 2, 3, 4, 8], np.float32)
    divided = scale_inputs._rows_over([ir.tensor(rows), ir.tensor(factors)], 4)
    parts = [rows_of(divided, start, stop) for start, stop in pairwise(cuts)]
    wanted = np.concatenate([rows[:4], (rows[4:9].T / factors).T, rows[9:]])
    np.testing.assert_array_equal(np.concatenate(parts), wanted)


def test_a_reader_with_larger_numbers_counts_no_more_than_the_others() -> None:
    seen = {name: np.array(each) for name, each in energies(model()).items()}
    divided = []
    for size in (1, 1 << 10):
        graph = model()
        for name in ("layers0_wv", "layers1_wk"):  # which want other factors than the rest
            large = _initializer(graph, name) * np.float32(size)
            graph.graph.initializers[name].const_value = ir.tensor(large, name=name)
        ScaleInputs(None, ScaledEnergies(seen))(graph)
        divided.append({n: _initializer(graph, f"{n}:divided") for n in NORMS})
    for name in NORMS:
        np.testing.assert_array_equal(divided[0][name], divided[1][name])


_NO_VALUES = "Attention makes its input, of values that take no factors"
_NEITHER = "Mul makes its input, and neither side of it takes factors"


@pytest.mark.parametrize(
    ("part", "lines", "reason"),
    [
        ("norm", "n1 = Neg (x)", "Neg makes its input"),
        ("norm", "n1 = RMSNormalization (x, x)", "RMSNormalization makes its input, without one"),
        ("norm", "n1 = RMSNormalization <axis = -2> (x, norm)", "RMSNormalization makes its input"),
        ("gated", "d = Gelu (uy)", "Gelu makes its input"),
        ("gated", "d = Add (gm, uy)", "Add makes its input"),
        ("gated", "d = Mul (uy, uy)", _NEITHER),
        ("gated", "g = Sigmoid (uy)\n d = Mul (uy, g)", _NEITHER),
        ("value", "vm = MatMul (n1, wvt)\n w = Add (vm, v_bias)\n vy = Tanh (w)", _NO_VALUES),
        ("attention", ATTENTION.replace("qy, ky, vy", "qy, ky, ky"), _NO_VALUES),
        ("residual", "y = Add (n2, down_y)", "what it reads is read by Add, too"),
    ],
)
def test_what_takes_no_factors_is_named(part: str, lines: str, reason: str) -> None:
    graph = model(**{part: lines})
    done = check(ScaleInputs(None, energies(graph)), graph, FEEDS, CLOSE)
    assert reasons(done)
    assert all(each.startswith(reason) for each in reasons(done))


def _two_layers(first: str, more: str = "", width: int = WIDTH) -> ir.Model:
    """A layer whose input is made by ``first``, of weights w and u; ``more`` reads something."""
    text = f"""main (float[b, s, {width}] x) => (float[b, s, {width}] y, float[b, s, {width}] z) {{
      wt = Transpose <perm = [1, 0]> (w)
      {first}
      ut = Transpose <perm = [1, 0]> (u)
      y = MatMul (n, ut)
      {more}
    }}"""
    arrays = {"w": random(width, width, scale=0.1), "u": random(width, width, seed=1, scale=0.1)}
    if "bias" in first:
        arrays["bias"] = random(1, seed=2)
    if "norm" in first:
        arrays["norm"] = np.ones(width, np.float32)
    return load(text, arrays)


@pytest.mark.parametrize(
    ("first", "more", "reason"),
    [
        ("n = MatMul (x, wt)", "z = Identity (n)", "what it reads is read by Identity, too"),
        ("n = MatMul (x, wt)", "z = MatMul (n, wt)", "its weight is read by something else, too"),
        ("n = MatMul (x, wt)", "z = Abs (x)", None),
        (
            "n = MatMul (x, wt)",
            "v = Identity (w)\n z = MatMul (x, v)",
            "the weight of the layer in front of it is read by something else, too",
        ),
        (
            "n = RMSNormalization <axis = -1> (x, norm)",
            "z = MatMul (n, wt)\n v = Identity (w)",
            "its weight is read by something else, too",
        ),
        ("z = MatMul (x, wt)\n n = Add (x, z)", "", "Add makes its input"),
        (
            "m = MatMul (x, wt)\n n = Add (m, bias)",
            "z = Identity (x)",
            "Add makes its input",
        ),
    ],
)
def test_layers_in_a_row(first: str, more: str, reason: str | None) -> None:
    graph, feeds = _two_layers(first, more), {"x": FEEDS["x"]}
    done = check(ScaleInputs(None, energies(graph, feeds)), graph, feeds, CLOSE)
    assert done.fired == (0 if reason else 1)
    assert (reason or "what it reads is read by Abs, too") in reasons(done)


def test_nothing_happens_where_no_group_divides_the_columns() -> None:
    graph, feeds = _two_layers("n = MatMul (x, wt)", "z = Abs (x)", 40), {"x": FEEDS["x"][..., :40]}
    done = check(ScaleInputs(None, energies(graph, feeds)), graph, feeds, CLOSE)
    assert (done.fired, reasons(done)) == (0, [])


def test_refuses_what_was_not_calibrated() -> None:
    graph = model()
    found = energies(graph)
    seen = {name: found[name] for name in found if not name.endswith("gate")}
    done = check(ScaleInputs(None, ScaledEnergies(seen)), graph, FEEDS, CLOSE)
    assert (done.fired, reasons(done)) == (11, ["its input was not calibrated"])


def test_refuses_weights_that_are_rounded_already() -> None:
    graph = model()
    seen = energies(graph)
    WeightInt4(_for(lambda name: 4 if name.endswith("up") else None))(graph)
    done = check(ScaleInputs(None, seen), graph, FEEDS, CLOSE)
    assert sorted(reasons(done)) == [
        "Mul makes its input, and neither side of it takes factors",
        "a weight that reads its input is rounded already",
    ]


def test_refuses_a_table_that_is_the_head() -> None:
    graph, _ = tied()
    seen = ScaledEnergies({name: np.ones(64) for name in graph.graph.initializers})
    done = check(ScaleInputs(_for(lambda name: 4), seen), graph, TIED_FEEDS, CLOSE)
    assert (done.fired, reasons(done)[-1]) == (
        0,
        "its weight is a table whose rows are looked up, too",
    )


def test_refuses_what_experts_read_and_are_chosen_by() -> None:
    graph, feeds = scored(), {"x": routed(8)["x"]}
    seen = ScaledEnergies({"router": np.ones(graph.graph.inputs[0].shape[-1])})  # type: ignore[index]
    done = check(ScaleInputs(None, seen), graph, feeds, CLOSE)
    assert (done.fired, reasons(done)) == (0, ["what it reads is read by Experts, too"])
