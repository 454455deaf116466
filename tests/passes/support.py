"""Small graphs for pass tests: build from ONNX text, run on onnxruntime, compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from lepton_compile.engines.model_file import flatten
from lepton_compile.pipeline.unsigned import with_unsigned_weights
from lepton_passes.contract import LeptonPass, Tolerance
from lepton_passes.tensors import StreamedTensor
from lepton_plugins.spec import CPU_DOMAIN
from tests.plugins.cpu_library import library

HEADER = """<ir_version: 11, opset_import:
["" : 24, "ai.lepton" : 1, "ai.lepton.layer" : 1, "com.microsoft" : 1]>"""
LAYER = """<domain: "ai.lepton.layer", opset_import:
["" : 24, "ai.lepton" : 1, "com.microsoft" : 1]>"""

Arrays = Mapping[str, np.ndarray]


def load(text: str, weights: Arrays | None = None) -> ir.Model:
    """A model from ONNX text; ``weights`` become initializers of the main graph."""
    model = ir.from_onnx_text(f"{HEADER}\n{text}")
    _add_dialect(model)
    values = {v.name: v for node in model.graph for v in node.inputs if v is not None}
    for name, array in (weights or {}).items():
        value = values[name]
        value.const_value = ir.tensor(array, name=name)
        value.type = ir.TensorType(value.const_value.dtype)
        value.shape = value.const_value.shape
        model.graph.register_initializer(value)
    return model


def _add_dialect(model: ir.Model) -> None:
    """Bodies of the ai.lepton ops that the model uses."""
    graphs = [model.graph, *(f.graph for f in model.functions.values())]
    used = [n for graph in graphs for n in graph if n.domain == "ai.lepton"]
    if used:
        from lepton_compile.export.dialect import functions

        for function in functions(used):
            model.functions[function.identifier()] = function


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Normal fp32 numbers."""
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


class Counted:
    """A weight of random numbers ``w`` that counts how many of its rows were asked for."""

    def __init__(self, rows: int, columns: int) -> None:
        self.w = random(rows, columns)
        self.rows_read = 0

    def tensor(self) -> StreamedTensor:
        """The weight, fp32 (rows, columns)."""

        def read(start: int, stop: int) -> np.ndarray:
            self.rows_read += stop - start
            return self.w[start:stop]

        return StreamedTensor("w", ir.DataType.FLOAT, self.w.shape, read)


def run(model: ir.Model, feeds: Arrays) -> list[np.ndarray]:
    """Outputs of the model on onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    # The runtime's own fusions round differently; what is compared is our graph.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if any(n.domain == CPU_DOMAIN for f in (model.graph, *model.functions.values()) for n in f):
        options.register_custom_ops_library(str(library()))
        model = model.clone()
        flatten(model)  # onnxruntime infers no types of custom ops inside functions
    session = onnxruntime.InferenceSession(
        ir.to_proto(with_unsigned_weights(model)).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    return session.run(None, dict(feeds))


def assert_close(
    before: Sequence[np.ndarray], after: Sequence[np.ndarray], tolerance: Tolerance
) -> None:
    """Outputs agree within a tolerance that the caller states."""
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert old.shape == new.shape
        reach = float(np.ptp(old)) or 1.0
        assert np.abs(old - new).max() <= tolerance.error * reach
        dot = float((old.ravel() * new.ravel()).sum(dtype=np.float64))
        # Not norm(), which some BLAS builds add up in fp32, one number after the other.
        squares = [float((each.ravel() ** 2).sum(dtype=np.float64)) for each in (old, new)]
        norm = float(np.sqrt(squares[0] * squares[1])) or 1.0
        assert norm == 1.0 or dot / norm >= tolerance.cosine


def ops(model: ir.Model, function: str | None = None) -> list[str]:
    """Op types in order, of the main graph or of a function by name; constants left out."""
    graph = model.graph
    if function is not None:
        graph = next(f.graph for f in model.functions.values() if f.name == function)
    return [n.op_type for n in graph if n.op_type != "Constant"]


def check(
    lepton_pass: LeptonPass, model: ir.Model, feeds: Arrays, tolerance: Tolerance
) -> LeptonPass:
    """Apply a pass, and hold the outputs after it against those before."""
    before = run(model, feeds)
    lepton_pass(model)
    assert_close(before, run(model, feeds), tolerance)
    return lepton_pass


def reasons(lepton_pass: LeptonPass) -> list[str]:
    """Reasons of the refusals, in order."""
    return [refusal.reason for refusal in lepton_pass.refusals]
