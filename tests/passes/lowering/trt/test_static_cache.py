"""lower-trt-static-cache."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from lepton_passes.lowering.half_precision import LowerHalfPrecision
from lepton_passes.lowering.last_layer import LowerLastLayer
from lepton_passes.lowering.trt.cached_attention import LowerTrtCachedAttention
from lepton_passes.lowering.trt.forms import attention_forms
from lepton_passes.lowering.trt.legal_trt import LegalTrt
from lepton_passes.lowering.trt.static_cache import OPEN, LowerTrtStaticCache
from tests.passes.lowering.trt.decoder import (
    CAPACITY,
    DIM,
    KV,
    WIDTH,
    Driven,
    Truth,
    follow,
    neutral,
)
from tests.passes.support import ops, reasons

PROMPTS = ([7, 8, 9, 10, 11], [20, 21, 22])


@pytest.mark.parametrize(("window", "softcap"), [(-1, 0.0), (3, 0.0), (-1, 2.0), (1, 2.0)])
def test_rows_of_different_length_are_those_of_the_neutral_graph(
    window: int, softcap: float
) -> None:
    model = neutral(window=window, softcap=softcap)
    truth = Truth(model)
    done = LowerTrtStaticCache(CAPACITY)
    done(model)
    assert (done.fired, reasons(done)) == (2, [])
    assert follow(truth, Driven(model, 2), PROMPTS, steps=8) < 1e-5


def test_attention_that_says_nothing_has_neither_window_nor_softcap() -> None:
    model = neutral(window=-1, softcap=0.0)
    for function in model.functions.values():
        for node in function:
            for name in ("window", "softcap"):
                node.attributes.pop(name, None)
    LowerTrtStaticCache(CAPACITY)(model)
    made = [n for f in model.functions.values() for n in f if n.op_type == "CachedAttention"]
    said = [(n.attributes.get_int("window"), n.attributes.get_float("softcap")) for n in made]
    assert said == [(-1, 0.0)]


def test_the_interface() -> None:
    model = neutral()
    LowerTrtStaticCache(CAPACITY)(model)
    graph = model.graph
    assert [v.name for v in graph.inputs][:3] == [
        "input_ids",
        "past_lengths",
        "past_key_values.0.key",
    ]
    assert str(graph.inputs[1].type) == "INT32"
    caches = [v for v in (*graph.inputs, *graph.outputs) if "." in (v.name or "")]
    assert {tuple(map(str, v.shape or ())) for v in caches} == {
        ("b", str(KV), str(CAPACITY), str(DIM))
    }
    assert graph.outputs[0].shape is not None
    assert graph.outputs[0].shape[1] == 1
    assert "logits_to_keep" not in graph.initializers


def test_caches_of_several_capacities_are_a_dimension_that_the_plugin_takes() -> None:
    model = neutral()
    LowerHalfPrecision(ir.DataType.FLOAT16)(model)
    LowerTrtStaticCache(CAPACITY, several=True)(model)
    done, legal = LowerTrtCachedAttention(), LegalTrt()
    done(model)
    legal(model)
    assert (reasons(done), reasons(legal)) == ([], [])
    assert attention_forms(model) == {"plugin": 2}
    caches = [v for v in (*model.graph.inputs, *model.graph.outputs) if "." in (v.name or "")]
    assert {tuple(map(str, v.shape or ())) for v in caches} == {("b", str(KV), OPEN, str(DIM))}


@pytest.mark.parametrize("form", ["native", "mask", "slice", "matmul"])
def test_other_forms_have_caches_of_one_capacity(form: str) -> None:
    model = neutral()
    LowerHalfPrecision(ir.DataType.FLOAT16)(model)
    LowerTrtStaticCache(CAPACITY, several=True)(model)
    done = LowerTrtCachedAttention(form)
    done(model)
    assert reasons(done) == [f"a cache of several capacities, which {form} has not: plugin"]


def test_what_the_plugin_lacks_has_no_caches_of_several_capacities() -> None:
    model = neutral()  # in fp32
    LowerTrtStaticCache(CAPACITY, several=True)(model)
    LowerTrtCachedAttention()(model)
    legal = LegalTrt()
    legal(model)
    assert reasons(legal) == ["the plugin computes in FLOAT16 and BFLOAT16, not in FLOAT"]


def test_what_is_left() -> None:
    model = neutral()
    LowerTrtStaticCache(CAPACITY)(model)
    assert not {"Positions", "KeepLast"} & set(ops(model))
    block = next(f for f in model.functions.values() if f.name == "block")
    attention = next(n for n in block if n.op_type == "CachedAttention")
    assert attention.domain == "lepton"
    assert attention.attributes.get_int("head_dim") == DIM
    assert [v.name for v in block.inputs if v.name == "mask"] == []


def test_the_last_layer_is_computed_for_the_last_position() -> None:
    model = neutral()
    for node in model.graph:
        if {out.name for out in node.outputs} & {"x", "h", "g"}:  # export knows them
            node.outputs[0].shape = ir.Shape(["b", "s", WIDTH])
    truth = Truth(model)
    last = LowerLastLayer()
    last(model)
    assert last.fired == 1
    LowerTrtStaticCache(CAPACITY)(model)
    assert ops(model, "block.1").count("Gather") == 2
    assert "KeepLast" not in ops(model, "block.1")
    assert "logits_to_keep" not in [v.name for v in model.graph.inputs]
    assert follow(truth, Driven(model, 2), PROMPTS, steps=4) < 1e-5


def test_an_encoder_is_left_alone() -> None:
    model = neutral()
    for value in [v for v in model.graph.inputs if "." in (v.name or "")]:
        value.name = (value.name or "").replace("past_key_values.", "other.")
    done = LowerTrtStaticCache(CAPACITY)
    before = ops(model)
    done(model)
    assert (done.fired, ops(model)) == (0, before)


@pytest.mark.parametrize(
    ("options", "capacity", "reason"),
    [
        ({}, None, "the capacity of the cache is unknown: shapes.sequence"),
        ({"causal": 0}, CAPACITY, "it is not causal"),
        (
            {"rows": 8},
            CAPACITY,
            "a table of 8 positions, 16 in a row",
        ),
        (
            {"extra": "n = ReduceSum (attention_mask)", "layer": ""},
            CAPACITY,
            "it reads the attention mask, which is no input any more",
        ),
        (
            {"layer": "m = Not (mask)"},
            CAPACITY,
            "it reads the attention mask, which is no input any more",
        ),
    ],
)
def test_refuses_and_changes_nothing(
    options: dict[str, object], capacity: int | None, reason: str
) -> None:
    model = neutral(**options)  # type: ignore[arg-type]
    before = ops(model), ops(model, "block"), [v.name for v in model.graph.inputs]
    done = LowerTrtStaticCache(capacity)
    done(model)
    assert set(reasons(done)) == {reason}
    assert done.fired == 0
    assert (ops(model), ops(model, "block"), [v.name for v in model.graph.inputs]) == before


def test_refuses_a_mask_of_its_own() -> None:
    model = neutral(extra="other = Not (seen)")
    calls = [n for n in model.graph if n.op_type == "block"]
    other = next(n for n in model.graph if n.op_type == "Not").outputs[0]
    for call in calls:
        call.replace_input_with(1, other)
    done = LowerTrtStaticCache(CAPACITY)
    done(model)
    assert "its mask is not the attention mask" in reasons(done)
    assert done.fired == 0
