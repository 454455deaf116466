"""Layers that follow each other are one op of the outer trace; what is read of them is right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from lepton_compile.errors import ExportError
from lepton_compile.export.capture import capturing
from lepton_compile.export.chain import Chain, stamping
from lepton_compile.export.model import build_graph
from lepton_compile.export.tasks import TaskModule
from lepton_compile.export.trace import EXAMPLE_SIZES, trace

from .harness import FP32, relative_error, run, session_of

LAYERS = 4
LONGEST = 64


class Layer(GradientCheckpointingLayer):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor, by: Tensor) -> Tensor:
        return x + torch.tanh(self.linear(x)) * by


class Outer(GradientCheckpointingLayer):
    """A layer with layers in it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Layer()

    def forward(self, x: Tensor, by: Tensor) -> Tensor:
        return self.inner(x, by) * 0.5  # type: ignore[no-any-return]


Between = Callable[[int, list[Tensor], Tensor], Tensor]


class Network(nn.Module):
    """Layers one after the other; ``between`` makes the input of each from all before it."""

    def __init__(self, between: Between, layer: type[nn.Module] = Layer) -> None:
        super().__init__()
        self.embed = nn.Embedding(99, 8)
        self.layers = nn.ModuleList(layer() for _ in range(LAYERS))
        self.between = between

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        by = mask[..., None].float()
        states = [self.embed(ids)]
        for index, layer in enumerate(self.layers):
            states.append(layer(self.between(index, states, by), by))
        return self.between(LAYERS, states, by)


class Task(TaskModule):
    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.input_names = ["input_ids", "attention_mask"]
        self.input_dims = [("batch", "sequence")] * 2
        self.output_names = ["hidden"]

    def forward(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        return [self.network(*inputs)]


def straight(index: int, states: list[Tensor], by: Tensor) -> Tensor:
    return states[-1]


def scaled(index: int, states: list[Tensor], by: Tensor) -> Tensor:
    """The model works on what the second layer returns."""
    return states[-1] * 2 if index == 2 else states[-1]


def skipped(index: int, states: list[Tensor], by: Tensor) -> Tensor:
    """The end reads what the second layer returned."""
    return states[-1] + states[2] if index == LAYERS else states[-1]


def changed(index: int, states: list[Tensor], by: Tensor) -> Tensor:
    """What the layers read changes under them."""
    if index == 2:
        by.add_(1.0)
    return states[-1]


def chains(between: Between, layer: type[nn.Module] = Layer) -> list[Chain]:
    task = Task(Network(between, layer).to("meta"))
    with (
        torch.no_grad(),
        capturing(task.network, LONGEST) as capture,
        stamping(task, task.network, capture) as layers,
    ):
        trace(task, task.example(EXAMPLE_SIZES), task.open_dims(), LONGEST)
    return layers.chains


def reads(chain: Chain) -> list[int | None]:
    """The calls whose outputs are read outside."""
    return [place.call for place in chain.outputs]


def test_layers_in_a_row_are_one_op() -> None:
    (chain,) = chains(straight)
    assert [call.path for call in chain.calls] == [f"layers.{i}" for i in range(LAYERS)]
    assert reads(chain)[-1] == LAYERS - 1
    assert len(chain.inputs) == 2


def test_a_chain_ends_where_the_model_reads_it() -> None:
    assert [len(chain.calls) for chain in chains(scaled)] == [2, 2]


def test_a_layer_inside_another_is_part_of_it() -> None:
    (chain,) = chains(straight, Outer)
    assert len(chain.calls) == LAYERS


def test_what_changes_in_place_is_refused() -> None:
    with pytest.raises(ExportError, match="changes in place"):
        chains(changed)


@pytest.mark.parametrize("between", [straight, scaled, skipped])
@pytest.mark.parametrize("layer", [Layer, Outer])
def test_equals_pytorch(between: Between, layer: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = Network(between, layer).eval()
    weights = {name: weight.numpy().copy() for name, weight in network.state_dict().items()}
    ids, mask = torch.randint(0, 99, (2, 7)), torch.ones(2, 7, dtype=torch.int64)
    with torch.no_grad():
        expected = network(ids, mask).numpy()
    graph = build_graph(lambda _: Task(network.to("meta")), LONGEST)
    assert (graph.how, graph.kinds) == ("stamped", 1)
    for name, value in graph.model.graph.initializers.items():
        if value.const_value is None:
            value.const_value = ir.tensor(weights[graph.parameters[name][0]], name=name)
    found = run(
        session_of(graph.model), {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
    )["hidden"]
    assert relative_error(np.asarray(found), expected) < FP32
