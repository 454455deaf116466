"""Write a lowered model as an engine for ONNX Runtime's CUDA provider. Building needs no GPU."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from lepton_compile.engines.contract import BuiltEngine, EngineJob
from lepton_compile.engines.interface import cache_type, own_interface
from lepton_compile.engines.model_file import encoder_among, write_model
from lepton_compile.engines.ort_cuda.probe import LEAST, PACKAGE
from lepton_compile.engines.readable import check_readable

__all__ = ["REQUIRES", "build"]

REQUIRES = {PACKAGE: f">={LEAST}"}

_COMPUTE = {ir.DataType.FLOAT16: "fp16", ir.DataType.BFLOAT16: "bf16"}


def build(job: EngineJob) -> BuiltEngine:
    """The engine is the graph itself, as for the CPU; its caches are in half precision.

    Raises:
        EngineError: the graph is too large for a protobuf file, onnxruntime does not read it, or
            the disk is full.
    """
    graph = job.model.graph
    details: dict[str, Any] = {
        "io": own_interface(graph),
        "cache": cache_type(graph),
        "compute": _compute(job.model),
    }
    files = write_model(job.model, job.folder, job.step, stem=job.stem, store=job.store)
    for path in (file for file in files if file.suffix == ".onnx"):
        check_readable(path)
    names = [file.name for file in files]
    encoder = encoder_among(files, job.stem)
    return BuiltEngine(names[0], REQUIRES, details, files=names, encoder=encoder)


def _compute(model: ir.Model) -> str:
    """The type of the arithmetic, by the weights: fp32, fp16 or bf16."""
    stored = (v.const_value.dtype for v in model.graph.initializers.values() if v.const_value)
    return next((_COMPUTE[dtype] for dtype in stored if dtype in _COMPUTE), "fp32")
