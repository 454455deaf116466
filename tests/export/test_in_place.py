"""What a model writes into its own tensors, in a graph that has values alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import Tensor

from lepton_compile.export.builder import Builder
from lepton_compile.export.trace import dims_of, trace
from lepton_compile.export.translate import HANDLERS, Translator, UnknownOpError

from .harness import Coded

X = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)


def _graph(code: Callable[[Tensor], Tensor]) -> ort.InferenceSession:
    dims = [("batch", None)]
    program = trace(Coded(code), [torch.empty(4, 6, device="meta")], dims)
    builder = Builder()
    names = dims_of(program, dims)
    translator = Translator(builder, HANDLERS, dims=names, lifted={}, constants={})
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", 6]))
    outputs = translator.run(program.graph, [x])
    graph = ir.Graph([x], outputs, nodes=builder.nodes, opset_imports={"": 24}, name="main")
    data = ir.to_proto(ir.Model(graph, ir_version=11)).SerializeToString()
    return ort.InferenceSession(data, providers=["CPUExecutionProvider"])


def _divided(x: Tensor) -> Tensor:
    best = torch.topk(x, 2)[0]
    best /= best.sum(-1, keepdim=True)
    return best


def _scattered(x: Tensor) -> Tensor:
    mask = torch.zeros_like(x)
    mask.scatter_(1, torch.topk(x, 3, sorted=False)[1], 1)
    mask.scatter_(1, torch.topk(x, 1, largest=False)[1], x[:, :1])
    return mask.unsqueeze(-1).expand(-1, -1, 2).reshape(-1, 12)


def _viewed_before(x: Tensor) -> Tensor:
    y = x + 1
    seen = y.view(-1, 2, 3).sum(-1)
    y.mul_(2)
    return y[:, :2] + seen


def _smallest(x: Tensor) -> Tensor:
    return torch.topk(x, 2, dim=1, largest=False)[0]


@pytest.mark.parametrize("code", [_divided, _scattered, _viewed_before, _smallest])
def test_who_reads_it_later_reads_what_was_written(code: Callable[[Tensor], Tensor]) -> None:
    found = _graph(code).run(None, {"x": X})[0]
    np.testing.assert_allclose(found, code(torch.from_numpy(X.copy())).numpy(), rtol=1e-5)


def _through_a_view(x: Tensor) -> Tensor:
    y = x + 1
    y[:, 1:].mul_(2)
    return y


def _view_read_afterwards(x: Tensor) -> Tensor:
    y = x + 1
    turned = y.transpose(0, 1)
    y.mul_(2)
    return turned.sum(0, keepdim=True)


def _of_its_input(x: Tensor) -> Tensor:
    return x.mul_(2)


@pytest.mark.parametrize("code", [_through_a_view, _view_read_afterwards, _of_its_input])
def test_two_names_of_one_place_are_refused(code: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(UnknownOpError, match="by two names"):
        _graph(code)
