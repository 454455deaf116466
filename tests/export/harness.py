"""Compile a tiny model to a neutral session, and the PyTorch model to compare it with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch

from lepton_compile.export import ExportedModel, resolve
from lepton_compile.export.builder import Builder
from lepton_compile.export.capture.constant import ConstantCapture
from lepton_compile.export.export import export
from lepton_compile.export.task_names import auto_class
from lepton_compile.export.trace import dims_of, trace
from lepton_compile.export.translate import HANDLERS, Translator

# Relative to the range of the reference output, as the design states it for fp32.
FP32 = 2e-5


class Coded(torch.nn.Module):
    """``code`` of one tensor as a module that can be traced."""

    def __init__(self, code: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.code = code

    def forward(self, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        return [self.code(inputs[0])]


def session_of_code(code: Callable[[torch.Tensor], torch.Tensor]) -> ort.InferenceSession:
    """``code`` of a tensor ``x`` (batch, 6), captured and translated by itself."""
    dims = [("batch", None)]
    with ConstantCapture():
        program = trace(Coded(code), [torch.empty(4, 6, device="meta")], dims)
    builder = Builder()
    names = dims_of(program, dims)
    translator = Translator(builder, HANDLERS, dims=names, lifted={}, constants={})
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", 6]))
    outputs = translator.run(program.graph, [x])
    graph = ir.Graph([x], outputs, nodes=builder.nodes, opset_imports={"": 24}, name="main")
    return session_of(ir.Model(graph, ir_version=11))


def save(config: Callable[[], Any], task: str, folder: Path) -> torch.nn.Module:
    """A random model, saved to ``folder``; its weights are far from their initial values."""
    torch.manual_seed(0)
    made = config()
    auto = auto_class(made, task)
    make = getattr(auto, "from_config", None) or auto._from_config
    model: torch.nn.Module = make(made).eval().float()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.2)
            else:
                parameter.normal_(0.3, 0.2)
    model.save_pretrained(folder)  # type: ignore[operator]
    return model


def compiled(folder: Path, task: str, **options: Any) -> tuple[ExportedModel, ort.InferenceSession]:
    """The unlowered graph on plain onnxruntime."""
    exported = export(resolve(str(folder), base=folder.parent), task, **options)
    return exported, session_of(exported.model)


def session_of(model: ir.Model) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    data = ir.serde.serialize_model(model).SerializeToString()
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def empty_cache(session: ort.InferenceSession, batch: int) -> dict[str, np.ndarray]:
    """Caches without a token, and states of zero."""
    sizes = {"batch": batch, "past_sequence": 0}
    return {
        i.name: np.zeros([sizes.get(size, size) for size in i.shape], np.float32)
        for i in session.get_inputs()
        if i.name.startswith("past_")
    }


def run(session: ort.InferenceSession, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    span = float(expected.max() - expected.min())
    return float(np.abs(found - expected).max()) / max(span, 1e-6)


def padded(batch: int, length: int, side: str) -> tuple[np.ndarray, np.ndarray]:
    """(ids, mask); the second row is three tokens shorter unless ``side`` is "none"."""
    rng = np.random.default_rng(0)
    ids = rng.integers(3, 99, (batch, length))
    mask = np.ones((batch, length), np.int64)
    if side == "right":
        mask[1, -3:] = 0
    if side == "left":
        mask[1, :3] = 0
    return ids, mask
