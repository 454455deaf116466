"""One node of the op as the two of ahead-of-time plugins: same edges, checked against the spec."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto

from lepton_plugins.attention.plugin_qdp import step_named
from lepton_plugins.attention.qdp_nodes import expand
from lepton_plugins.spec import PluginError
from tests.plugins.attention.trt_graphs import graph


def model(**changes: object) -> ir.Model:
    """A graph of one node."""
    return ir.from_proto(graph(**changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize(
    ("phase", "kernels"), [("prefill", ("append", "prefill")), ("decode", ("decode", "combine"))]
)
def test_two_nodes_with_the_edges_of_one(phase: str, kernels: tuple[str, str], sinks: bool) -> None:
    found = model(sinks=sinks, window=8)
    before = [(v.name, v.dtype, v.shape) for v in (*found.graph.inputs, *found.graph.outputs)]
    assert expand(found, phase, target=90, batch=1) == 1  # type: ignore[arg-type]
    after = [(v.name, v.dtype, v.shape) for v in (*found.graph.inputs, *found.graph.outputs)]
    assert after == before
    onnx.checker.check_model(ir.to_proto(found))
    steps = [step_named(node.op_type) for node in found.graph]
    assert [step.kernel for step in steps if step] == [*kernels]
    for node, step in zip(found.graph, steps, strict=True):
        assert step is not None
        assert set(node.attributes) == set(step.attributes), "a plugin knows no defaults"
        assert node.attributes.get_int("window") == 8
        assert node.attributes.get_float("scale") == 0.125
        named = {value.name for value in node.inputs if value is not None}
        assert ("sinks" in named) is step.sinks
        assert all(value.dtype is not None for value in node.outputs)
    first, second = found.graph
    passed = {value.name for value in first.outputs} & {v.name for v in second.inputs if v}
    middle = "layers.0.attention"
    assert passed == (
        {"present_key", "present_value"}
        if phase == "prefill"
        else {f"{middle}/partial", f"{middle}/partial_lse"}
    )


def test_the_number_of_splits_suits_the_device_and_the_batch() -> None:
    def splits(batch: int) -> int:
        found = model()
        cache = {value.name: value for value in found.graph.inputs}["key_cache"]
        cache.shape = ir.Shape(["batch", 1, 8192, 64])
        expand(found, "decode", target=90, batch=batch)
        node = next(iter(found.graph))
        assert node.outputs[2].shape is not None
        assert node.outputs[2].shape[2] == node.attributes.get_int("splits")
        return node.attributes.get_int("splits")

    assert splits(1) > splits(64) >= 1


def test_a_cache_of_open_capacity_is_refused() -> None:
    found = model()
    cache = {value.name: value for value in found.graph.inputs}["key_cache"]
    cache.shape = ir.Shape(["batch", 1, "capacity", 64])
    with pytest.raises(PluginError, match="fixed capacity") as caught:
        expand(found, "decode", target=90, batch=1)
    assert caught.value.where == "layers.0.attention"


def test_a_node_without_kernels_is_named() -> None:
    with pytest.raises(PluginError, match="takes no query of this type") as caught:
        expand(model(dtype=TensorProto.FLOAT), "prefill", target=90, batch=1)
    assert caught.value.where == "layers.0.attention"
