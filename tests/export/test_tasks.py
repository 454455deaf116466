"""Inputs and outputs of the modules that are traced."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor, nn

from lepton_compile.export.model import build_graph
from lepton_compile.export.tasks import TaskModule
from lepton_compile.export.trace import EXAMPLE_SIZES


class Planes(TaskModule):
    """Reads numbers of three fixed axes, and how often to take them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.input_names = ["values", "times"]
        self.input_dims = [("batch", 3, 4), ("batch", "sequence")]
        self.input_dtypes = {"values": torch.float32}
        self.output_names = ["scores"]

    def forward(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        values, times = inputs
        return [self.network(values.flatten(1)) * times.sum(1, keepdim=True)]


def test_an_input_has_its_own_type_and_its_fixed_sizes() -> None:
    module = Planes(nn.Linear(12, 2, device="meta"))
    values, times = module.example(EXAMPLE_SIZES)
    assert (values.dtype, times.dtype) == (torch.float32, torch.int64)
    graph = build_graph(lambda cache: module, 16).model.graph
    found = {
        v.name: (v.dtype, [d if isinstance(d, int) else str(d) for d in v.shape or ()])
        for v in graph.inputs
    }
    assert found == {
        "values": (ir.DataType.FLOAT, ["batch", 3, 4]),
        "times": (ir.DataType.INT64, ["batch", "sequence"]),
    }
