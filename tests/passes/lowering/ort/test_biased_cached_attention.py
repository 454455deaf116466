"""lower-biased-cached-attention."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.lowering.last_layer import LowerLastLayer
from lepton_passes.lowering.ort.biased_cached_attention import LowerBiasedCachedAttention
from tests.passes.support import Arrays, assert_close, check, ops, random, reasons, run
from tests.plugins.cpu_library import needs_library

from .biased import CUT, attention, inferred, mask_of, turned

pytestmark = needs_library

THREE = "q0 = Relu (x) k0 = Neg (x) v0 = Identity (x)"
SPLIT = """sizes = Constant <value_ints = [64, 64, 64]> ()
      q0, k0, v0 = Split <axis = -1> (wide, sizes)"""
GROWN = """key = Concat <axis = 2> (past_key, k)
      value = Concat <axis = 2> (past_value, v)"""
PAST = ", ".join(f"float[b, 4, p, 16] past_{kind}" for kind in ("key", "value"))


def _model(
    made: str = THREE,
    grown: str = GROWN,
    source: str = "encoder_input_ids",
    outputs: str = "y, key, value",
    end: str = "",
    bias: str = "float[b, 4, s, t]",
) -> ir.Model:
    model = inferred(
        f"""main (float[b, s, 64] x, float[b, s, 192] wide, {bias} bias, {PAST},
          int64[b, r] {source}) => ({outputs}) {{
      {made}
      {CUT}
      {" ".join(turned(name, f"{name}0") for name in "qkv")}
      {grown}
      {attention("q", "key", "value")}
      {end}
    }}"""
    )
    for node in model.graph:  # as export has it
        for value in node.outputs:
            if value.name in ("key", "value") and value.shape is not None:
                value.shape = ir.Shape(["b", 4, "t", 16])
    return model


def _feeds(past: int = 5, new: int = 3, lengths: tuple[int, int] = (8, 6)) -> Arrays:
    total = past + new
    order = np.tril(np.ones((new, total), bool), total - new)
    least = np.where(order, np.float32(0), np.finfo(np.float32).min)
    bias = np.maximum(random(2, 4, new, total, seed=2) + mask_of([*lengths], total), -1e30)
    return {
        "x": random(2, new, 64),
        "wide": random(2, new, 192, seed=1),
        "bias": np.maximum(bias + least, np.finfo(np.float32).min).astype(np.float32),
        "past_key": random(2, 4, past, 16, seed=3),
        "past_value": random(2, 4, past, 16, seed=4),
        "encoder_input_ids": np.ones((2, 2), np.int64),
    }


def _attention(model: ir.Model) -> ir.Node:
    (node,) = (n for n in model.graph if n.op_type == "GroupQueryAttention")
    return node


LENGTHS = ["Shape", "Cast", "Sub", "Shape", "Expand"]


@pytest.mark.parametrize(("past", "new"), [(5, 3), (0, 4), (9, 1)])
def test_the_kernel_extends_the_cache(past: int, new: int) -> None:
    model = _model()
    lowering = check(LowerBiasedCachedAttention(), model, _feeds(past, new, (past + 1, 2)), CLOSE)
    assert lowering.fired == 1
    assert ops(model) == ["Relu", "Neg", "Identity", *LENGTHS, "GroupQueryAttention"]
    node = _attention(model)
    assert [node.inputs[i].name for i in (0, 1, 2, 12)] == ["q0", "k0", "v0", "bias"]
    assert [value.name for value in model.graph.outputs] == ["y", "key", "value"]


def test_three_pieces_go_in_as_one() -> None:
    model = _model(SPLIT)
    assert check(LowerBiasedCachedAttention(), model, _feeds(), CLOSE).fired == 1
    assert ops(model) == [*LENGTHS, "GroupQueryAttention"]
    assert [value and value.name for value in _attention(model).inputs[:3]] == ["wide", None, None]


def test_spare_room_changes_nothing() -> None:
    model, feeds = _model(), {**_feeds()}
    LowerBiasedCachedAttention()(model)
    tight = run(model, feeds)
    for name in ("past_key", "past_value"):
        room = np.full((2, 4, 4, 16), np.nan, np.float32)
        feeds[name] = np.concatenate([feeds[name], room], axis=2)
    y, *caches = run(model, feeds)
    assert np.array_equal(y, tight[0])
    assert all(np.array_equal(a[:, :, :8], b) for a, b in zip(caches, tight[1:], strict=True))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_last_positions_alone(count: int) -> None:
    """The bias stays where the last layer is told how many positions are wanted."""
    end = """kept = MatMul (y, w)
      z = ai.lepton.KeepLast (kept, count)"""
    model = _model(end=end, outputs="z, key, value")
    weight = ir.Value(name="w", const_value=ir.tensor(random(64, 8, seed=5), name="w"))
    weight.type, weight.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape((64, 8))
    wanted = ir.Value(name="count", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(()))
    for node in model.graph:
        for index, value in enumerate(node.inputs):
            if value is not None and value.name in ("w", "count"):
                node.replace_input_with(index, weight if value.name == "w" else wanted)
    model.graph.register_initializer(weight)
    model.graph.inputs.append(wanted)
    feeds = {**_feeds(), "count": np.array(count, np.int64)}
    before = run(model, feeds)
    LowerBiasedCachedAttention()(model)
    last = LowerLastLayer()
    last(model)
    assert last.fired == 1
    node = _attention(model)
    assert [node.inputs[i].name for i in (11, 12)] == ["count", "bias"]
    assert_close(before, run(model, feeds), CLOSE)


RAGGED = "rows of different lengths would share a buffer"
CACHE = "its keys are not those of a cache and new ones behind"


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"source": "input_ids"}, RAGGED),
        ({"outputs": "y, key"}, CACHE),
        ({"grown": "cold = Neg (k) " + GROWN.replace("past_key, k)", "past_key, cold)")}, CACHE),
        ({"grown": GROWN.replace("(past_key, k)", "(k, past_key)")}, CACHE),
        ({"grown": GROWN.replace("past_value", "past_key")}, CACHE),
        ({"end": "also = Neg (key)"}, CACHE),
        (
            {"bias": "float[b, 2, s, t]"},
            "the bias is not (batch, heads, queries, keys), or 1 of them",
        ),
    ],
)
def test_refuses(how: dict[str, str], reason: str) -> None:
    lowering = LowerBiasedCachedAttention()
    lowering(_model(**how))
    assert (lowering.fired, reasons(lowering)) == (0, [reason])


def test_leaves_keys_without_a_cache_to_the_other() -> None:
    model = _model(grown="key = Identity (k) value = Identity (v)")
    lowering = LowerBiasedCachedAttention()
    lowering(model)
    assert (lowering.fired, reasons(lowering)) == (0, [])
