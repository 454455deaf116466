"""quantize-cache."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.body import DIALECT, bodies
from lepton_passes.quant.quantize_cache import QuantizeCache, caches_in
from lepton_passes.quant.ranges import InputRange
from tests.passes.lowering.trt.decoder import DIM, KV, Truth, neutral
from tests.passes.support import ops, reasons

NAMES = [f"past_key_values.{layer}.{kind}" for layer in (0, 1) for kind in ("key", "value")]
IDS = [7, 8, 9, 10, 11]


def seen(_: object = None) -> dict[str, InputRange]:
    """Another range for each cache."""
    found = {}
    for number, name in enumerate(NAMES, 1):
        found[name] = InputRange()
        found[name].see(np.full((1, KV * DIM), 10.0 * number, np.float32))
    return found


@pytest.mark.parametrize(
    ("dtype", "most"), [(ir.DataType.INT8, 127), (ir.DataType.FLOAT8E4M3FN, 448)]
)
def test_each_cache_has_the_scale_of_its_range(dtype: ir.DataType, most: int) -> None:
    model = neutral()
    done = QuantizeCache(dtype, seen)
    done(model)
    assert (done.fired, reasons(done)) == (2, [])
    assert [ops(model, "block").count(f"{way}Linear") for way in ("Quantize", "Dequantize")] == [
        2,
        2,
    ]
    scales = {n: v for n, v in model.graph.initializers.items() if n.endswith(":scale")}
    for number, name in enumerate(NAMES, 1):
        tensor = scales[f"{name}:scale"].const_value
        assert tensor is not None
        assert float(tensor.numpy()) == pytest.approx(10.0 * number / most, rel=1e-2)
        assert float(tensor.numpy()) >= np.float32(10.0 * number / most)


def test_the_graph_shows_what_it_costs() -> None:
    model = neutral()
    before = Truth(model)(IDS)
    QuantizeCache(ir.DataType.INT8, seen)(model)
    after = Truth(model)(IDS)
    error = np.abs(after - before).max() / np.ptp(before)
    assert 1e-6 < error < QuantizeCache.tolerances["fp32"].error


def test_a_plan_runs_nothing() -> None:
    model = neutral()
    done = QuantizeCache()
    done(model)
    assert (done.fired, reasons(done)) == (2, [])
    found = [v.const_value for n, v in model.graph.initializers.items() if n.endswith(":scale")]
    assert {float(t.numpy()) for t in found if t is not None} == {np.float32(1.0)}


def test_caches_go_by_the_names_of_their_pasts() -> None:
    body = next(b for b in bodies(neutral()) if b.function is not None)
    (node,) = body.nodes("CachedAttention", domain=DIALECT)
    assert caches_in(body, node) == [(1, NAMES[::2]), (2, NAMES[1::2])]


def _narrow(model: ir.Model) -> None:
    for value in model.graph.inputs:
        if value.name in NAMES:
            value.shape = ir.Shape(["b", KV, "p", 8])


@pytest.mark.parametrize(
    ("narrow", "names", "reason"),
    [
        (True, NAMES, "heads of 8, where the plugin has 32 to 512 in steps of 16"),
        (False, NAMES[:2], "what goes into its cache was not seen on the sample"),
    ],
)
def test_refuses(narrow: bool, names: list[str], reason: str) -> None:
    model = neutral()
    if narrow:
        _narrow(model)
    done = QuantizeCache(measure=lambda _: {n: r for n, r in seen().items() if n in names})
    done(model)
    assert (reasons(done), done.fired) == ([reason], 0)
    assert "QuantizeLinear" not in ops(model, "block")


def test_refuses_heads_of_unknown_width() -> None:
    model = neutral()
    for value in model.graph.inputs:
        if value.name in NAMES:
            value.shape = None
    done = QuantizeCache(measure=seen)
    done(model)
    assert (reasons(done), done.fired) == (["the width of its heads is unknown"], 0)


def test_refuses_attention_that_is_the_models_own() -> None:
    model = neutral()
    past = next(v for v in model.graph.inputs if v.name == NAMES[0])
    axes = ir.node("Concat", [past, past], {"axis": 2})
    model.graph.append(axes)
    done = QuantizeCache(measure=seen)
    done(model)
    assert reasons(done) == ["its attention is the model's own code"]
    assert done.must_not_refuse
