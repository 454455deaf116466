"""Calibration on onnxruntime: each layer's input, in layers that share a function too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from lepton_compile.errors import PassError
from lepton_compile.pipeline.calibrate import calibrate
from tests.passes.quant.rounding import NAMES, model
from tests.passes.support import load, ops, random, run

FEEDS = [{"x": random(1, 5, 64, seed=1)}, {"x": random(1, 3, 64, seed=2, scale=3.0)}]


def test_every_layer_is_seen_with_its_own_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    graph, steps = model(), []
    before = ops(graph, "block")
    ranges = calibrate(graph, FEEDS, lambda *step: steps.append(step))
    assert sorted(ranges) == sorted(NAMES)
    assert ranges[NAMES[0]] is ranges[NAMES[1]]
    stacked = np.concatenate([np.abs(feed["x"]).reshape(-1, 64) for feed in FEEDS])
    np.testing.assert_array_equal(ranges[NAMES[0]].channels, stacked.max(axis=0))
    # The second layer reads what the first one made.
    middle = load(
        "main (float[b, s, 64] x, float[64, 64] u, float[64, 64] g, float[64, 64] d) => (m) {"
        " a = Transpose <perm = [1, 0]> (u) b = Transpose <perm = [1, 0]> (g)"
        " c = Transpose <perm = [1, 0]> (d) p = MatMul (x, a) q = MatMul (x, b)"
        " r = Mul (p, q) m = MatMul (r, c) }"
    )
    weights = [graph.graph.initializers[name].const_value.numpy() for name in NAMES[:3]]
    made = [run(middle, {**feed, **dict(zip("ugd", weights, strict=True))})[0] for feed in FEEDS]
    most = max(float(np.abs(part).max()) for part in made)
    assert ranges[NAMES[3]].most == pytest.approx(most, rel=1e-4)
    assert ops(graph, "block") == before
    assert list(tmp_path.iterdir()) == []
    assert steps == [("calibrating", 0, 2), ("calibrating", 1, 2), ("calibrated", 2, 2)]


def test_twice_is_the_same() -> None:
    first, second = (calibrate(model(), FEEDS) for _ in range(2))
    assert {n: r.int8_scale() for n, r in first.items()} == {
        n: r.int8_scale() for n, r in second.items()
    }


def test_caches_start_empty_and_unknown_inputs_are_left_out() -> None:
    text = """main (float[b, s, 64] x, float[b, 2, p, 8] past) => (y, z) {
      t = Transpose <perm = [1, 0]> (w)
      y = MatMul (x, t)
      z = Identity (past)
    }"""
    graph = load(text, {"w": random(4, 64)})
    graph.graph.inputs[1].name = "past_key_values.0.key"
    found = calibrate(graph, [{**FEEDS[0], "unknown": np.zeros(1)}])
    assert found["w"].most == float(np.abs(FEEDS[0]["x"]).max())


def test_a_graph_that_does_not_run_is_an_error() -> None:
    graph = load(
        "main (float[b, s, 64] x) => (y) { n = Nonsense (x)"
        " t = Transpose <perm = [1, 0]> (w) y = MatMul (n, t) }",
        {"w": random(4, 64)},
    )
    with pytest.raises(PassError, match="does not run") as caught:
        calibrate(graph, FEEDS)
    assert "Nonsense" in str(caught.value)


def test_weights_are_not_turned_over_to_be_calibrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen: list[set[str]] = []

    def progress(what: str, _done: int, _total: int) -> None:
        for path in tmp_path.rglob("model.onnx") if what == "calibrating" else ():
            inside = onnx.load(path, load_external_data=False)
            seen.append({node.op_type for f in inside.functions for node in f.node})

    graph = model()
    assert "Transpose" in ops(graph, "block")
    for function in graph.functions.values():
        for value in function.inputs:
            value.type = ir.TensorType(ir.DataType.FLOAT)
    calibrate(graph, FEEDS, progress)
    assert seen == [{"FusedMatMul", "Mul", "Identity"}] * len(FEEDS)
