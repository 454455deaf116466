"""Engines of ONNX Runtime: how a session is opened."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lepton_compile.runtime.loader_guard import UnfitError, check_digests, refuse

__all__ = ["PROVIDERS", "open_onnxruntime", "open_session"]

PROVIDERS = {
    "ort-cpu": ["CPUExecutionProvider"],
    "ort-cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
}


def open_onnxruntime(
    root: Path, manifest: Mapping[str, Any], engine: Mapping[str, Any], threads: int
) -> Any:
    """The opened engine: first what can be told without reading a file, then its digests."""
    package, least = _needed(engine)
    missing = f"this engine needs {package}: pip install '{package}{least}'"
    refuse(not find_spec("onnxruntime"), missing, UnfitError)
    if PROVIDERS[engine["target"]][0].startswith("CUDA"):
        from lepton_compile.runtime.loader_ort_cuda import check_driver

        check_driver()
    check_digests(root, manifest, {engine["model"], *engine["files"]})
    return open_session(root / engine["model"], engine, threads)


def open_session(path: Path, engine: Mapping[str, Any], threads: int) -> Any:
    """An onnxruntime.InferenceSession of the model at ``path``, on the device of its target."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise UnfitError(f"onnxruntime does not import: {error}") from None
    (_, least), providers = _needed(engine), PROVIDERS[engine["target"]]
    found, wanted = (v.strip(">=").split(".")[:2] for v in (ort.__version__, least))
    old = [*map(int, found)] < [*map(int, wanted)]
    refuse(old, f"this engine needs onnxruntime{least}, found {ort.__version__}", UnfitError)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    # Threads that spin for their next piece of work, not sleep, make a token a sixth faster.
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(threads > 1)))
    if providers[0].startswith("CUDA"):
        from lepton_compile.runtime.loader_ort_cuda import start_cuda

        start_cuda(ort)
    if engine.get("precision") in ("int8", "auto"):
        from lepton_compile.runtime.loader_saturation import saturates

        options.add_session_config_entry("session.x64quantprecision", str(int(saturates())))
    if engine.get("kernels"):
        from lepton_compile.runtime.loader_kernels import register_kernels

        register_kernels(options, path, engine)
    try:
        session = ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise UnfitError(f"onnxruntime cannot open {path.name}: {error}") from error
    # A provider that does not start is left out with no more than a line on stderr.
    idle = providers[0] not in session.get_providers()
    refuse(idle, f"onnxruntime could not start {providers[0]}: see what it wrote above", UnfitError)
    return session


def _needed(engine: Mapping[str, Any]) -> tuple[str, str]:
    """The package that the engine asks for, and its version, such as ``>=1.30``."""
    named = (item for item in engine["requires"].items() if item[0].startswith("onnxruntime"))
    return next(named, ("onnxruntime", ">=1"))
