"""The plugin inside a plan: two nodes for one, kernels that exist, and who is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import onnx
import onnx_ir as ir
import pytest

from lepton_compile.api.early import check_early
from lepton_compile.engines.model_file import flatten
from lepton_compile.engines.tensorrt.asked import asked_of
from lepton_compile.engines.tensorrt.baked_plugin import bake_plugin
from lepton_compile.engines.tensorrt.child.events import Failure
from lepton_compile.engines.tensorrt.child.plugins import register_baked
from lepton_compile.engines.tensorrt.plugins import aliases_of, plugin_domains
from lepton_compile.errors import EngineError, RecipeError
from lepton_compile.recipe import load_recipe
from lepton_plugins.attention.plugin_qdp import step_named
from tests.passes.lowering.trt.decoder import CAPACITY, DIM, HEADS, KV, lowered, neutral
from tests.plugins.attention.bindings import needs_bindings, run_bindings

CACHES = [f"{layer}.{kind}" for layer in (0, 1) for kind in ("key", "value")]
TYPES = {"FLOAT16": "HALF", "INT32": "INT32"}
SHAPES = {
    "query": [2, 5, HEADS * DIM],
    "key": [2, 5, KV * DIM],
    "past_lengths": [2],
    "key_cache": [2, KV, CAPACITY, DIM],
}


def decoder(**options: Any) -> ir.Model:
    """Two layers in fp16, flat, as a builder gets them."""
    model = neutral(**options)
    lowered(model, "plugin", half=True)
    flatten(model)
    return model


@pytest.fixture
def baked(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> ir.Model:
    pytest.importorskip("triton")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model, told = decoder(window=3), list[tuple[int, int]]()
    assert bake_plugin(model, ["9.0"], lambda what, done, total: told.append((done, total))) == 90
    assert told == [(0, 2), (1, 2)], "layers that are alike share their kernels"
    return model


def test_a_node_becomes_two_that_write_into_the_caches(baked: ir.Model) -> None:
    nodes = [node for node in baked.graph if node.domain == "lepton"]
    pair = ["CachedAttentionAppend", "CachedAttentionPrefill"]
    assert [node.op_type for node in nodes] == 2 * pair
    assert aliases_of(baked) == {f"present.{n}": f"past_key_values.{n}" for n in CACHES}
    asked = asked_of(baked, plugin_domains(baked))
    assert [(each.type, each.inputs) for each in asked] == 2 * [("PLUGIN_V3", 5), ("PLUGIN_V3", 4)]
    onnx.checker.check_model(ir.to_proto(baked))


@needs_bindings
def test_the_bindings_take_the_nodes_as_they_are_written(baked: ir.Model) -> None:
    nodes = [node for node in baked.graph if node.domain == "lepton"]
    jobs = [(node.op_type, _tensors(node), _attributes(node)) for node in nodes]
    append, prefill, *others = run_bindings("qdp", jobs)
    assert others == [append, prefill]
    cache = ["HALF", SHAPES["key_cache"]]
    assert (append["outputs"], append["aliases"]) == ([cache, cache], [3, 4])
    assert (prefill["outputs"], prefill["aliases"]) == ([["HALF", SHAPES["query"]]], [-1])


def _tensors(node: ir.Node) -> list[tuple[str, list[int]]]:
    step = step_named(node.op_type)
    assert step is not None
    types = [value.dtype.name for value in node.inputs if value is not None and value.dtype]
    shapes = (SHAPES[name.replace("value", "key")] for name in step.inputs)
    return [(TYPES[name], shape) for name, shape in zip(types, shapes, strict=True)]


def _attributes(node: ir.Node) -> dict[str, Any]:
    return {each.name: each.value for each in node.attributes.values()}


def test_a_graph_without_the_plugin_is_left() -> None:
    model = neutral()
    lowered(model, "native", half=True)
    flatten(model)
    before = [node.op_type for node in model.graph]
    assert bake_plugin(model, ["9.0"]) is None
    assert [node.op_type for node in model.graph] == before


@pytest.mark.parametrize("capabilities", [["8.0", "9.0"], ["8.0", "8.6", "8.9"]])
def test_several_gpus_are_refused(capabilities: list[str]) -> None:
    with pytest.raises(EngineError, match="is for one compute capability") as caught:
        bake_plugin(decoder(), capabilities)
    assert caught.value.where == "compute_capabilities"


def test_a_gpu_without_kernels_is_named() -> None:
    with pytest.raises(EngineError, match=r"no kernels for compute capability 7\.5"):
        bake_plugin(decoder(), ["7.5"])


def test_a_recipe_for_tensorrt_rtx_is_told_at_once() -> None:
    recipe = {"model": "./model", "target": ["trt-rtx", "trt"], "plugin": "aot"}
    with pytest.raises(RecipeError, match="takes no compiled plugin") as caught:
        check_early(load_recipe(recipe))
    assert caught.value.where == "plugin"
    with pytest.raises(RecipeError) as caught:
        check_early(load_recipe({**recipe, "per_target": {"trt-rtx": {"plugin": "aot"}}}))
    assert caught.value.where == "per_target.trt-rtx.plugin"
    own = {"per_target": {"trt": {"plugin": "aot"}}}
    check_early(load_recipe(recipe | own | {"plugin": "v3"}))


def test_a_library_without_such_plugins_is_told() -> None:
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(Failure, match="takes no compiled plugins") as caught:
        register_baked(SimpleNamespace(__name__="tensorrt_rtx"), 90)
    assert caught.value.fields["where"] == "plugin"
