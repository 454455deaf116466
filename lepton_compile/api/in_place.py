"""Whether an engine of ONNX Runtime may write its caches in place."""

from __future__ import annotations

from lepton_compile.errors import EngineError
from lepton_compile.export import ExportedModel
from lepton_compile.pipeline import PipelineReport

__all__ = ["in_place"]

_EXTENDS = tuple(f"lower-{kind}-attention" for kind in ("cached", "marked", "biased-cached"))
_READS = "lower-shared-attention"


def in_place(passes: PipelineReport, exported: ExportedModel, target: str) -> bool:
    """Whether all of its attention has kernels that do.

    Others read a buffer to its end, and rows as they are padded; those kernels want rows that begin
    where the buffer does.

    Raises:
        EngineError: layers that read the cache of another have no such kernel, and that one has.
    """
    extends = sum(map(passes.fired, _EXTENDS)) == len(exported.caches)
    reads = passes.fired(_READS) == exported.sharing
    if extends and not reads:
        raise EngineError(
            "layers that read the cache of another would read it otherwise than it is written",
            where=f"target {target}",
            found=f"{_READS} took {passes.fired(_READS)} of {exported.sharing} layers",
            hint="its refusals are in the report; onnxruntime has the kernel from 1.31 on, and "
            "passes: {disable: [lower-cached-attention]} does without for all layers",
        )
    return extends
