"""Write a lowered model as an engine for ONNX Runtime."""

from __future__ import annotations

from lepton_compile.engines.contract import BuiltEngine, EngineJob
from lepton_compile.engines.model_file import MODEL_FILE, WEIGHTS_FILE, write_model

__all__ = ["MODEL_FILE", "REQUIRES", "WEIGHTS_FILE", "build"]

REQUIRES = {"onnxruntime": ">=1.30"}


def build(job: EngineJob) -> BuiltEngine:
    """The engine is the graph itself, in the form the runtime has kernels for.

    Raises:
        EngineError: the graph is too large for a protobuf file, or the disk is full.
    """
    write_model(job.model, job.folder, job.step)
    return BuiltEngine(MODEL_FILE, REQUIRES)
