"""smooth-inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_compile.pipeline.calibrate import calibrate
from lepton_passes.contract import SAME
from lepton_passes.quant import smooth_inputs
from lepton_passes.quant.activation_int8 import ActivationInt8
from lepton_passes.quant.calibration import Calibration, unseen
from lepton_passes.quant.ranges import InputRange
from lepton_passes.quant.smooth_inputs import EXPONENTS, SmoothInputs, _expected_errors
from lepton_passes.quant.weight_int8 import WeightInt8
from tests.passes.quant.rounding import NAMES, WIDTH, model
from tests.passes.support import check, load, ops, random, reasons, run

FEEDS = {"x": random(3, 5, WIDTH, seed=4)}
FEEDS["x"][..., 7] *= 40  # one channel much larger than the others


def _calibration(feeds: dict[str, np.ndarray] = FEEDS) -> Calibration:
    measure: Callable[[ir.Model], dict[str, InputRange]] = lambda m: calibrate(m, [feeds])  # noqa: E731
    return Calibration(measure, measure(model()))


def _error(graph: ir.Model, feeds: dict[str, np.ndarray] = FEEDS) -> float:
    (wanted,), (got,) = run(model(), feeds), run(graph, feeds)
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))


def _factors(graph: ir.Model) -> np.ndarray:
    """Those of the first input, in its first layer."""
    return 1 / graph.graph.initializers[f"{NAMES[0]}:factors:inverse"].const_value.numpy()


def test_the_graph_computes_the_same() -> None:
    graph, found = model(), _calibration()
    before = {name: seen.channels.copy() for name, seen in found.ranges.items()}
    readers = [graph.graph.initializers[name].const_value.numpy() for name in NAMES[:2]]
    done = check(SmoothInputs(found), graph, FEEDS, SAME)
    assert (done.fired, reasons(done)) == (6, [])
    layer = ["Transpose", "MatMul"]
    assert sorted(ops(graph, "block")) == sorted(["Mul", *layer, *layer, "Mul", "Mul", *layer])
    factors = _factors(graph)
    assert np.log2(factors).tolist() == np.rint(np.log2(factors)).tolist()
    assert factors[7] > 4 * np.median(factors)
    # Of one exponent for all channels, by the largest of a column in any layer that reads it.
    x, w = np.log2(before[NAMES[0]]), np.log2(np.max([np.abs(w) for w in readers], axis=(0, 1)))
    candidates = [np.exp2(np.rint(a * x - (1 - a) * w)).tolist() for a in EXPONENTS]
    assert factors.tolist() in candidates
    # The ranges are those of what is read now.
    np.testing.assert_array_equal(found.ranges[NAMES[0]].channels, before[NAMES[0]] / factors)


def test_rounding_loses_less_afterwards() -> None:
    smooth, plain = model(), model()
    found = _calibration()
    for graph, passes in (
        (smooth, [SmoothInputs(found), WeightInt8(), ActivationInt8(found)]),
        (plain, [WeightInt8(), ActivationInt8(_calibration())]),
    ):
        for each in passes:
            each(graph)
    assert _error(smooth) < 0.6 * _error(plain)


def test_expected_errors_are_those_of_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without factors all channels but one are less than half a step; with large ones weights lose
    as much."""
    monkeypatch.setattr(smooth_inputs, "_BLOCK", 4 * WIDTH * 5)  # 5 rows at a time
    draw = np.random.default_rng(0)
    channels = np.exp2(draw.integers(-3, 4, WIDTH))
    channels[3] = 2400
    x = draw.uniform(-1, 1, (4000, WIDTH)) * channels
    weights = [random(rows, WIDTH, seed=rows) for rows in (7, 12)]
    for w in weights:
        w[:, 3] /= 100
    seen = InputRange()
    seen.see(x.astype(np.float32))
    candidates = np.stack([channels**a for a in (0, 0.5, 1)]).astype(np.float32)
    found = _expected_errors(seen, [ir.tensor(w) for w in weights], candidates)
    wide = np.concatenate(weights)
    for s, expected in zip(candidates, found, strict=True):
        step = np.abs(x / s).max() / 127
        steps = np.abs(wide * s).max(axis=1, keepdims=True) / 127
        rounded = [np.rint(x / s / step) * step, np.rint(wide * s / steps) * steps]
        lost = rounded[0] @ rounded[1].T - x @ wide.T
        assert expected == pytest.approx(np.square(lost).sum(axis=1).mean(), rel=0.1)


@given(st.integers(0, WIDTH - 1), st.floats(1e-3, 1e3))
@settings(max_examples=10, deadline=None)
def test_any_channel_of_any_size(channel: int, size: float) -> None:
    feeds = {"x": random(2, 3, WIDTH, seed=5)}
    feeds["x"][..., channel] *= size
    check(SmoothInputs(_calibration(feeds)), model(), feeds, SAME)


def test_dead_channels_are_left_as_they_are() -> None:
    feeds = {"x": FEEDS["x"].copy()}
    feeds["x"][..., 3] = 0
    graph, found = model(), _calibration(feeds)
    for name in NAMES[:2]:  # and those that no layer reads
        weight = graph.graph.initializers[name]
        kept = weight.const_value.numpy() * (np.arange(WIDTH) != 5).astype(np.float32)
        weight.const_value = ir.tensor(kept, name=name)
    check(SmoothInputs(found), graph, feeds, SAME)
    assert _factors(graph)[[3, 5]].tolist() == [1, 1]


def test_refuses_an_input_whose_channels_are_alike() -> None:
    even = np.sign(random(3, 5, WIDTH, seed=6))
    seen = InputRange()
    seen.see(even)
    found = Calibration(ranges=dict.fromkeys(NAMES, seen))
    done = check(SmoothInputs(found), model(), FEEDS, SAME)
    assert (done.fired, set(reasons(done))) == (
        0,
        {"rounding its input loses 0.2%, which is little"},
    )
    assert found.ranges == dict.fromkeys(NAMES, seen), "nothing changed that were to be measured"


def test_a_plan_counts_on_it() -> None:
    """It has run nothing, and does not know what rounding loses; passes may read the factors."""
    graph = model()
    done = SmoothInputs(Calibration(ranges=unseen(graph)))
    done(graph)
    assert (done.fired, reasons(done)) == (6, [])
    assert _factors(graph).tolist() == [1] * WIDTH


def test_refuses_readers_that_do_not_all_go_to_int8() -> None:
    def choose(name: str, _table: bool) -> tuple[int, None] | None:
        return None if "gate" in name else (8, None)

    done = check(SmoothInputs(_calibration(), choose), model(), FEEDS, SAME)
    assert (done.fired, reasons(done)) == (2, ["not all that read its input go to int8"])


def test_refuses_readers_of_which_one_is_rounded_already() -> None:
    graph, found = model(), _calibration()
    WeightInt8(lambda name, _table: (8, None) if "gate" in name else None)(graph)
    done = SmoothInputs(found)
    done(graph)
    assert (done.fired, reasons(done)) == (2, ["not all that read its input go to int8"])


def test_refuses_what_was_not_calibrated() -> None:
    found = _calibration()
    del found.ranges[NAMES[2]]
    done = check(SmoothInputs(found), model(), FEEDS, SAME)
    assert (done.fired, reasons(done)) == (4, ["its input was not calibrated"])


def test_refuses_a_weight_with_another_reader() -> None:
    text = f"""main (float[b, s, {WIDTH}] x) => (y, z) {{
      t = Transpose <perm = [1, 0]> (w)
      ut = Transpose <perm = [1, 0]> (u)
      v = MatMul (x, t)
      y = MatMul (x, ut)
      z = Identity (w)
    }}"""
    graph = load(text, {"w": random(WIDTH, WIDTH), "u": random(WIDTH, WIDTH, seed=1)})
    seen = InputRange()
    seen.see(FEEDS["x"])
    done = check(SmoothInputs(Calibration(ranges={"w": seen, "u": seen})), graph, FEEDS, SAME)
    assert (done.fired, reasons(done)) == (0, ["its weight is read by something else too"])


@pytest.mark.parametrize("bits", [4, None])
def test_leaves_what_does_not_go_to_int8(bits: int | None) -> None:
    graph = model()
    before = ops(graph, "block")
    choice = None if bits is None else (bits, None)
    done = check(SmoothInputs(_calibration(), lambda *_: choice), graph, FEEDS, SAME)
    assert (done.fired, reasons(done), ops(graph, "block")) == (0, [], before)
