"""Write a lowered model as an engine for ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lepton_compile.engines.contract import BuiltEngine, EngineJob
from lepton_compile.engines.interface import cache_type, own_interface
from lepton_compile.engines.model_file import encoder_among, write_model
from lepton_compile.engines.ort_cpu.kernels import entry, uses_library
from lepton_compile.engines.ort_cpu.nodes import all_nodes
from lepton_compile.engines.ort_cpu.probe import LEAST
from lepton_compile.engines.ort_cpu.saturation import multiplies_bytes
from lepton_compile.engines.ort_cpu.steps import check_steps
from lepton_compile.engines.readable import check_readable
from lepton_compile.errors import EngineError
from lepton_passes.body import MICROSOFT
from lepton_passes.lowering.ort.byte_cache import SHARE
from lepton_passes.match import reads_another_cache

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["REQUIRES", "build"]

REQUIRES = {"onnxruntime": f">={LEAST}"}
# Attention without a present, which 1.30 crashes on.
SHARED_REQUIRES = {"onnxruntime": ">=1.31"}
_USUAL = {"dtype": "float32"}  # of the model's public interface


def build(job: EngineJob) -> BuiltEngine:
    """The engine is the graph itself, in the form the runtime has kernels for.

    Raises:
        EngineError: it takes or gives what there are no arrays of; a Scan lacks sizes; it is too
            large for a protobuf file, onnxruntime does not read it, or the disk is full.
    """
    _check_types(job.model.graph)
    check_steps(job.model)
    library = job.library
    if library is not None and not uses_library(job.model):
        library.unlink()
        library = None
    requires = SHARED_REQUIRES if _shares(job.model) else REQUIRES
    files = write_model(job.model, job.folder, job.step, stem=job.stem, store=job.store)
    for path in (file for file in files if file.suffix == ".onnx"):
        check_readable(path, library)
    details: dict[str, Any] = {"saturates": multiplies_bytes(job.model)}
    if library is not None:
        details["kernels"] = entry(library, job.model)
    cache = cache_type(job.model.graph)
    if cache is not None and cache != _USUAL:
        shared = {"group": SHARE} if job.caches and cache["dtype"] == "int8" else {}
        details |= {"io": own_interface(job.model.graph), "cache": cache | shared}
    names = [file.name for file in files] + ([] if library is None else [library.name])
    encoder = encoder_among(files, job.stem)
    return BuiltEngine(files[0].name, requires, details, files=names, encoder=encoder)


def _check_types(graph: ir.Graph) -> None:
    """Callers give and get arrays of numpy, which has no bfloat16, nor numbers of 8 or 4 bits."""
    for value in (*graph.inputs, *graph.outputs):
        if value.dtype is not None and value.dtype.numpy().kind == "V":
            raise EngineError(
                "numpy has no arrays of this type, and onnxruntime gives none on the CPU",
                where=value.name,
                found=value.dtype.name,
                hint="export the model again, with a Cast to float32 there",
            )


def _shares(model: ir.Model) -> bool:
    """Whether a layer reads another one's cache by a kernel of onnxruntime."""
    kernel = (MICROSOFT, "GroupQueryAttention")
    nodes = (n for n in all_nodes(model) if (n.domain, n.op_type) == kernel)
    return any(map(reads_another_cache, nodes))
