"""Build an engine for TensorRT 11; it takes the GPU that the engine is for."""

from __future__ import annotations

from pathlib import Path

from lepton_compile.engines.contract import BuiltEngine, EngineJob
from lepton_compile.engines.gpu import gpus
from lepton_compile.engines.probe import installed
from lepton_compile.engines.tensorrt.build import build_engine
from lepton_compile.engines.tensorrt.flavour import TRT
from lepton_compile.errors import EngineError
from lepton_plugins.toolchain.store import user_cache

__all__ = ["build", "timing_cache"]


def build(job: EngineJob) -> BuiltEngine:
    """A plan for the GPU of this machine.

    ``compute_capabilities`` widens it: one makes it run on every GPU of that capability, several on
    every GPU since 8.0. What the builder measures is kept for the next build.

    Raises:
        EngineError: see ``tensorrt.build.build_engine``; no GPU, or another than was asked for.
    """
    version = installed(TRT.package)
    if version is None:
        return build_engine(job, TRT)  # says what is missing
    found = gpus()
    if not found:
        raise EngineError(
            "TensorRT builds on the GPU that the engine is for, and there is none here",
            where=f"target: {TRT.target}",
            available=["trt-rtx, which builds without one", "ort-cuda", "ort-cpu"],
            hint="lepton-compile targets says what this machine can build",
        )
    asked, own = job.recipe.compute_capabilities, found[0].compute_capability
    if asked and own not in asked:
        raise EngineError(
            f"TensorRT builds for the GPU it runs on, which is a {own}",
            where="compute_capabilities",
            found=", ".join(asked),
            available=[own],
        )
    return build_engine(job, TRT, timing_cache(version, f"{found[0].name} {own}"))


def timing_cache(version: str, device: str) -> Path:
    """The file of a version and a GPU, in the user's cache folder."""
    name = "".join(c if c.isalnum() or c == "." else "-" for c in f"{version}-{device}")
    return user_cache() / "timing" / f"{name}.cache"
