"""Write a lowered model as an engine for ONNX Runtime."""

from __future__ import annotations

from lepton_compile.engines.contract import BuiltEngine, EngineJob
from lepton_compile.engines.model_file import write_model
from lepton_compile.engines.ort_cpu.kernels import entry, uses_library

__all__ = ["REQUIRES", "build"]

REQUIRES = {"onnxruntime": ">=1.30"}


def build(job: EngineJob) -> BuiltEngine:
    """The engine is the graph itself, in the form the runtime has kernels for.

    Raises:
        EngineError: the graph is too large for a protobuf file, or the disk is full.
    """
    library = job.library
    if library is not None and not uses_library(job.model):
        library.unlink()
        library = None
    files = write_model(job.model, job.folder, job.step, stem=job.stem, store=job.store)
    details = {} if library is None else {"kernels": entry(library)}
    names = [file.name for file in files] + ([] if library is None else [library.name])
    return BuiltEngine(files[0].name, REQUIRES, details, files=names)
