"""lower-trt-static-cache over models that write attention out: against their neutral graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import transformers

from lepton_compile.export import resolve
from lepton_compile.export.export import export
from lepton_passes.lowering.half_precision import LowerHalfPrecision
from lepton_passes.lowering.trt._causal import window_of
from lepton_passes.lowering.trt.cached_attention import LowerTrtCachedAttention
from lepton_passes.lowering.trt.forms import attention_forms
from lepton_passes.lowering.trt.static_cache import LowerTrtStaticCache
from tests.export.harness import save
from tests.export.zoo import DECODERS, VOCABULARY
from tests.passes.lowering.trt.decoder import Driven, Truth, follow
from tests.passes.support import load, ops, reasons

CAPACITY, LAYERS = 24, 2
PROMPTS = ([7, 8, 9, 10, 11], [20, 21, 22])


def gpt_neo() -> transformers.GPTNeoConfig:
    """Masks that are cut from tables. It is captured up to one token before its positions end."""
    return transformers.GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_layers=3,
        num_heads=4,
        attention_types=[[["global", "local", "global"], 1]],
        window_size=4,
        max_position_embeddings=CAPACITY + 1,
        bos_token_id=1,
        eos_token_id=2,
    )


def bert() -> transformers.BertConfig:
    """Positions, and types of tokens by position from a table of one row, (1, positions)."""
    return transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=CAPACITY,
        is_decoder=True,
    )


OTHERS = {"gpt-neo": gpt_neo, "bert": bert}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ir.Model]:
    """A neutral graph, captured once."""
    return {"bloom": captured("bloom", tmp_path_factory.mktemp("bloom"))}


def captured(name: str, folder: Path) -> ir.Model:
    make = OTHERS.get(name) or DECODERS[name][0]
    save(make, "text-generation", folder / "model")
    found = export(resolve(str(folder / "model"), base=folder), "text-generation", length=CAPACITY)
    return found.model


def check(model: ir.Model, form: str) -> None:
    truth = Truth(model)
    layers = sum((value.name or "").endswith(".key") for value in model.graph.inputs)
    done = LowerTrtStaticCache(CAPACITY)
    done(model)
    LowerTrtCachedAttention()(model)
    assert layers
    assert (done.fired, reasons(done)) == (layers, [])
    assert attention_forms(model) == {form: layers}
    driven = Driven(model, 2, CAPACITY)
    assert follow(truth, driven, PROMPTS, steps=6, words=VOCABULARY) < 1e-5


def test_rows_of_different_length_are_those_of_the_neutral_graph(
    models: dict[str, ir.Model],
) -> None:
    check(models["bloom"].clone(), "own")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("bert", "native"),
        ("gpt-neo", "own"),
        ("falcon", "native"),
        ("falcon-grouped", "native"),
        ("falcon-alibi", "own"),
    ],
)
def test_other_models(name: str, form: str, tmp_path: Path) -> None:
    model = captured(name, tmp_path)
    check(model.clone(), form)
    if name == "gpt-neo":
        done = LowerTrtStaticCache(CAPACITY + 2)
        done(model)
        assert {*reasons(done)} == {
            f"a table of {CAPACITY + 1} positions, {CAPACITY + 2} in a row",
            "it counts queries from the end of the attention mask",  # those of such a table
        }
        assert done.fired == 0


def test_in_half_precision(models: dict[str, ir.Model]) -> None:
    model = models["bloom"].clone()
    truth = Truth(model)
    LowerHalfPrecision(ir.DataType.FLOAT16)(model)
    LowerTrtStaticCache(CAPACITY)(model)
    driven = Driven(model, 2, CAPACITY)
    assert follow(truth, driven, PROMPTS, steps=4, words=VOCABULARY) < 2e-2


def test_what_is_left(models: dict[str, ir.Model]) -> None:
    model = models["bloom"].clone()
    LowerTrtStaticCache(CAPACITY)(model)
    assert not {"Concat"} & {n.op_type for n in model.graph if n.outputs[0].is_graph_output()}
    assert ops(model).count("TensorScatter") == 2 * LAYERS
    assert "GatherND" not in ops(model), "the mask that the model made is gone"
    assert [v.name for v in model.graph.inputs][:2] == ["input_ids", "past_lengths"]
    caches = [v for v in (*model.graph.inputs, *model.graph.outputs) if "." in (v.name or "")]
    assert {v.shape[2] for v in caches if v.shape is not None} == {CAPACITY}


def test_a_form_that_was_asked_for_is_told_that_there_is_none(models: dict[str, ir.Model]) -> None:
    model = models["bloom"].clone()
    LowerTrtStaticCache(CAPACITY)(model)
    done = LowerTrtCachedAttention("plugin")
    done(model)
    assert reasons(done) == ["its attention is the model's own code, not plugin"] * LAYERS
    unasked = LowerTrtCachedAttention()
    unasked(model)
    assert reasons(unasked) == []


def test_caches_of_several_capacities_are_refused(models: dict[str, ir.Model]) -> None:
    done = LowerTrtStaticCache(CAPACITY, several=True)
    done(models["bloom"].clone())
    assert reasons(done) == ["its own attention has one capacity, not those of shapes.cache"]
    assert done.fired == 0


def test_without_a_capacity(models: dict[str, ir.Model]) -> None:
    model = models["bloom"].clone()
    done = LowerTrtStaticCache(None)
    done(model)
    assert reasons(done) == ["the capacity of the cache is unknown: shapes.sequence"]
    assert done.fired == 0


_GRAPH = """main (int64[b, s] input_ids, int64[b, t] attention_mask,
    float[b, 2, p, 4] past) => (float[b, 2, s, t] y, float[b, 2, t, 4] present)
{{
  new = Cast <to = 1> (input_ids)
  axes = Constant <value_ints = [1, 3]> ()
  four = Constant <value_ints = [1, 2, 1, 4]> ()
  wide = Unsqueeze (new, axes)
  keys = Expand (wide, four)
  present = Concat <axis = 2> (past, keys)
  turned = Transpose <perm = [0, 1, 3, 2]> (present)
  scores = MatMul (keys, turned)
  zero = Constant <value_int = 0> ()
  one = Constant <value_int = 1> ()
  first = Constant <value_ints = [0]> ()
  second = Constant <value_ints = [1]> ()
  middle = Constant <value_ints = [1, 2]> ()
  s1 = Shape <start = 1, end = 2> (input_ids)
  t1 = Shape <start = 1, end = 2> (attention_mask)
  s = Squeeze (s1, first)
  t = Squeeze (t1, first)
  before = Sub (t, s)
  steps = Range (zero, s, one)
  at = Add (steps, before)
  queries = Unsqueeze (at, second)
  places = Range (zero, t, one)
  past_ones = LessOrEqual (places, queries)
  {more}
  padding = Cast <to = 9> (attention_mask)
  real = Unsqueeze (padding, middle)
  seen = And (real, near)
  hidden = Constant <value_float = -30000.0> ()
  y = Where (seen, scores, hidden)
}}"""
_ALL = "near = Identity (past_ones)"
_WINDOW = """three = Constant <value_int = 3> ()
  limit = Sub (queries, three)
  close = Greater (places, limit)
  near = And (past_ones, close)"""
_FUTURE = "near = GreaterOrEqual (places, queries)"


def own_graph(more: str) -> ir.Model:
    """One attention whose mask is written out."""
    model = load(_GRAPH.format(more=more))
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.name in ("past", "present"):
            side = {"past": "past_key_values", "present": "present"}[value.name]
            value.name = f"{side}.0.key"
    return model


@pytest.mark.parametrize(("more", "window"), [(_ALL, -1), (_WINDOW, 3), (_FUTURE, None)])
def test_the_window_of_a_mask_is_settled_by_computing_it(more: str, window: int | None) -> None:
    graph = own_graph(more).graph
    seen = next(v for node in graph for v in node.outputs if v.name == "seen")
    assert window_of(graph, seen, 9) == window


_CUT = """main (int64[b, s] input_ids, int64[b, t] attention_mask) => (bool[1, 1, s, t] near) {
  end = Shape <start = 1, end = 2> (attention_mask)
  new = Shape <start = 1, end = 2> (input_ids)
  first = Sub (end, new)
  zero = Constant <value_ints = [0]> ()
  rows = Constant <value_ints = [2]> ()
  columns = Constant <value_ints = [3]> ()
  some = Slice (table, first, end, rows)
  near = Slice (some, zero, end, columns)
}"""


@pytest.mark.parametrize(("width", "window"), [(16, -1), (3, 3), (0, None)])
def test_the_window_of_a_mask_that_is_cut_from_a_table(width: int, window: int | None) -> None:
    distance = np.arange(16)[:, None] - np.arange(16)
    table = (distance >= 0) & (distance < width) if width else distance < 3
    graph = load(_CUT, {"table": table[None, None]}).graph
    assert window_of(graph, graph.outputs[0], 9) == window


def test_what_is_no_mask_has_no_window() -> None:
    graph = own_graph(_ALL).graph
    found = {v.name: window_of(graph, v, 9) for node in graph for v in node.outputs}
    assert {name for name, window in found.items() if window is not None} == {"seen"}


def test_a_window_that_the_model_wrote_out_becomes_that_of_the_cache() -> None:
    model = own_graph(_WINDOW)
    done = LowerTrtStaticCache(8)
    done(model)
    assert reasons(done) == []
    assert ops(model).count("TensorScatter") == 1
    assert "cache.seen.3" in [o.name for node in model.graph for o in node.outputs]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (_FUTURE, "the mask of its own attention is not a causal one"),
        (f"{_ALL}\n far = Cast <to = 1> (at)", ""),
    ],
)
def test_refuses_and_changes_nothing(more: str, reason: str) -> None:
    model = own_graph(more)
    if not reason:  # the scores depend on where a query is, counted from the end of the mask
        reason = "it counts queries from the end of the attention mask"
        far = next(v for node in model.graph for v in node.outputs if v.name == "far")
        where = next(node for node in model.graph if node.op_type == "Where")
        added = ir.node("Add", [where.inputs[1], far])
        model.graph.insert_before(where, added)
        where.replace_input_with(1, added.outputs[0])
    before = ops(model)
    done = LowerTrtStaticCache(8)
    done(model)
    assert reason in reasons(done)
    assert (ops(model), done.fired) == (before, 0)
