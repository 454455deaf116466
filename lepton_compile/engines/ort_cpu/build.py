"""Write a lowered model as an engine for ONNX Runtime."""

from __future__ import annotations

from lepton_compile.engines.contract import BuiltEngine, EngineJob
from lepton_compile.engines.model_file import write_model

__all__ = ["REQUIRES", "build"]

REQUIRES = {"onnxruntime": ">=1.30"}


def build(job: EngineJob) -> BuiltEngine:
    """The engine is the graph itself, in the form the runtime has kernels for.

    Raises:
        EngineError: the graph is too large for a protobuf file, or the disk is full.
    """
    files = write_model(job.model, job.folder, job.step, stem=job.stem, store=job.store)
    return BuiltEngine(files[0].name, REQUIRES, files=[file.name for file in files])
