"""Bodies: weights behind layer functions, derived weights, specialized functions, dead code."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.body import Body, bodies, sweep
from lepton_passes.tensors import concat_rows
from tests.passes.support import LAYER, load, random, run

TEXT = f"""
main (float[b, s, 4] x, float[s] unused) => (float[b, s, 4] y) {{
  [n0] h = ai.lepton.layer.block (x, unused, m.0.up.weight, m.0.down.weight)
  [n1] y = ai.lepton.layer.block (h, unused, m.1.up.weight, m.1.down.weight)
}}
{LAYER}
block (x, spare, up.weight, down.weight) => (y) {{
  u = MatMul (x, up.weight)
  y = MatMul (u, down.weight)
}}
"""
FEEDS = {"x": random(2, 3, 4), "unused": random(3)}


def _quoted(text: str) -> str:
    """ONNX text has no dots in names; the dialect has."""
    return text.replace("m.0.", "m_0_").replace("m.1.", "m_1_").replace(".weight", "_weight")


@pytest.fixture
def model() -> ir.Model:
    names = ["m_0_up_weight", "m_0_down_weight", "m_1_up_weight", "m_1_down_weight"]
    return load(_quoted(TEXT), {name: random(4, 4, seed=i) for i, name in enumerate(names)})


def _layer(model: ir.Model) -> Body:
    return bodies(model)[0]


def _input(body: Body, name: str) -> ir.Value:
    return next(v for v in body.graph.inputs if v.name == name)


def test_bodies_are_the_layers_and_the_main_graph(model: ir.Model) -> None:
    layer, main = bodies(model)
    assert (layer.name, layer.times) == ("block", 2)
    assert (main.name, main.times, main.calls) == ("", 1, ())


def test_weights_are_one_tensor_a_call(model: ir.Model) -> None:
    layer = _layer(model)
    tensors = layer.weights(_input(layer, "up_weight"))
    assert tensors is not None
    np.testing.assert_array_equal(tensors[1].numpy(), random(4, 4, seed=2))
    assert layer.weights(_input(layer, "x")) is None


def test_constant_needs_agreement_of_all_calls(model: ir.Model) -> None:
    layer = _layer(model)
    assert layer.constant(_input(layer, "up_weight")) is None
    model.graph.initializers["m_1_up_weight"].const_value = ir.tensor(random(4, 4))
    np.testing.assert_array_equal(layer.constant(_input(layer, "up_weight")), random(4, 4))


def test_results_are_what_each_call_gives(model: ir.Model) -> None:
    layer, main = bodies(model)
    (out,) = layer.graph.outputs
    assert layer.results(out) == [call.outputs[0] for call in layer.calls]
    assert layer.results(_input(layer, "up_weight")) == []
    assert main.results(model.graph.outputs[0]) == [model.graph.outputs[0]]


def test_derive_replaces_the_weight_of_every_call(model: ir.Model) -> None:
    before = run(model, FEEDS)
    layer = _layer(model)
    first, second = layer.nodes("MatMul")
    both = [_input(layer, "up_weight"), _input(layer, "down_weight")]
    packed = layer.derive(both, "packed", lambda t: concat_rows("packed", t))
    assert layer.derive(both, "packed", lambda t: concat_rows("packed", t)) is packed
    halves = layer.emit(first, "Split", [packed], {"axis": 0, "num_outputs": 2}, outputs=2)
    first.replace_input_with(1, halves.outputs[0])
    second.replace_input_with(1, halves.outputs[1])
    sweep(model)
    assert sorted(model.graph.initializers) == ["m_0_packed", "m_1_packed"]
    assert [v.name for v in layer.graph.inputs] == ["x", "packed"]
    np.testing.assert_array_equal(run(model, FEEDS)[0], before[0])


def test_derive_shares_what_calls_share(model: ir.Model) -> None:
    shared = model.graph.initializers["m_0_up_weight"]
    model.graph.node(1).replace_input_with(2, shared)
    layer = _layer(model)
    made = layer.derive([_input(layer, "up_weight")], "up_twice", lambda t: concat_rows("t", t * 2))
    assert len(set(map(id, layer.weights(made) or []))) == 1


def test_derive_keeps_away_from_a_name_that_is_taken(model: ir.Model) -> None:
    main = bodies(model)[1]
    source = model.graph.initializers["m_0_up_weight"]
    made = main.derive([source], "m_1_up_weight", lambda t: t[0])
    assert made.name == "m_1_up_weight.1"


def test_split_clones_the_function_for_other_calls(model: ir.Model) -> None:
    before = run(model, FEEDS)
    first, second = _layer(model).split(lambda index: index == 1)
    assert [first.times, second.times] == [1, 1]
    assert second.name == "block.1"
    assert [call.op_type for call in model.graph] == ["block", "block.1"]
    np.testing.assert_array_equal(run(model, FEEDS)[0], before[0])


def test_sweep_drops_inputs_nodes_initializers_and_functions(model: ir.Model) -> None:
    layer = _layer(model)
    up, down = layer.nodes("MatMul")
    down.replace_input_with(0, up.inputs[0])
    assert sweep(model) == 5  # a node, the inputs spare and up_weight, two initializers
    assert [v.name for v in layer.graph.inputs] == ["x", "down_weight"]
    assert sorted(model.graph.initializers) == ["m_0_down_weight", "m_1_down_weight"]
    for call in list(model.graph):
        ir.convenience.replace_all_uses_with(call.outputs[0], call.inputs[0], True)
    sweep(model)
    assert not model.functions


def test_replace_keeps_the_name_of_an_output(model: ir.Model) -> None:
    layer = _layer(model)
    _, down = layer.nodes("MatMul")
    relu = layer.emit(down, "Relu", [down.inputs[0]])
    layer.replace(down.outputs[0], relu.outputs[0])
    assert [v.name for v in layer.graph.outputs] == ["y"]
    assert not layer.can_replace(relu.outputs[0], layer.graph.inputs[0])
    with pytest.raises(ValueError, match="cannot also stand"):
        layer.replace(relu.outputs[0], layer.graph.inputs[0])


def test_a_node_stays_for_another_output_of_it() -> None:
    """What was replaced is an output of a node, which has to have a name."""
    text = """main (float[n, 4] x) => (y, z) {
      y.before = Neg (x)
      y, z = Split <axis = 1, num_outputs = 2> (y.before)
    }"""
    graph = load(text.replace("y.before", "before"))
    graph.graph[0].outputs[0].name = "y.before"
    before = run(graph, {"x": random(3, 4)})
    body, split = Body(graph), graph.graph[1]
    half = body.emit(split, "Slice", [graph.graph[0].outputs[0], *_ends(body, split)])
    body.replace(split.outputs[0], half.outputs[0])
    assert [value.name for value in graph.graph.outputs] == ["y", "z"]
    assert split.outputs[0].name == "y.before.1"
    for one, other in zip(before, run(graph, {"x": random(3, 4)}), strict=True):
        np.testing.assert_array_equal(one, other)


def _ends(body: Body, node: ir.Node) -> list[ir.Value]:
    return [body.constant_node(node, np.array([n], np.int64)) for n in (0, 2, 1)]
