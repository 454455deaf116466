"""Build an engine for TensorRT-RTX; no GPU is needed."""

from __future__ import annotations

from lepton_compile.engines.contract import BuiltEngine, EngineJob
from lepton_compile.engines.tensorrt.build import build_engine
from lepton_compile.engines.tensorrt.flavour import RTX

__all__ = ["build"]


def build(job: EngineJob) -> BuiltEngine:
    """A plan for the GPUs that ``compute_capabilities`` names, portable where it names none.

    Several GPUs share one plan, which holds the weights once.

    Raises:
        EngineError: see ``tensorrt.build.build_engine``.
    """
    return build_engine(job, RTX)
