"""Small networks and the orders that build them, for tests that start the child process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from lepton_compile.engines.tensorrt.order import Order, Profile

HEADER = '<ir_version: 10, opset_import: ["": 24, "trt": 1, "com.microsoft": 1, "lepton": 1]>'
QUERY = "float16[b, 4, s, 64]"
ATTENTION = f"main ({QUERY} q, {QUERY} k, {QUERY} v, int32[b] n) => ({QUERY} y)"
SIMPLE = "main (float16[b, 64] x) => (float16[b, 64] y) { y = Relu (x) }"


def graph(text: str, **names: str) -> ir.Model:
    """A model of ONNX text; ``names`` of nodes by op."""
    model = ir.from_onnx_text(f"{HEADER} {text}")
    for node in model.graph:
        node.name = names.get(node.op_type, node.op_type)
    return model


def profile(model: ir.Model, batch: tuple[int, int, int] = (1, 1, 4)) -> Profile:
    """One over the first dimension named ``b``; what is named ``s`` goes from 1 to 16."""
    sizes = {"b": batch, "s": (1, 8, 16)}
    made = Profile("all", {}, {}, {})
    for value in model.graph.inputs:
        assert value.shape is not None
        bounds = [sizes[str(d)] if not isinstance(d, int) else (d, d, d) for d in value.shape]
        for index, shapes in enumerate((made.min, made.opt, made.max)):
            shapes[value.name or ""] = [each[index] for each in bounds]
    return made


def order_for(folder: Path, model: ir.Model, **options: Any) -> Path:
    """The file of an order, its model beside it."""
    ir.save(model, folder / "model.onnx")
    order = Order(
        module="tensorrt_rtx",
        libraries="tensorrt_rtx_libs",
        model=str(folder / "model.onnx"),
        plan=str(folder / "model.plan"),
        links=str(folder / "links"),
        profiles=[profile(model)],
    )
    path = folder / "order.json"
    replace(order, **options).write(path)
    return path
