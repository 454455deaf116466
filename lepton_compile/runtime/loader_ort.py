"""Engines of ONNX Runtime: how a session is opened."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lepton_compile.runtime.loader_guard import UnfitError, check_digests, refuse

__all__ = ["PROVIDERS", "open_onnxruntime"]

CPU = "CPUExecutionProvider"
PROVIDERS = {"ort-cpu": [CPU], "ort-cuda": ["CUDAExecutionProvider", CPU]}


def open_onnxruntime(root: Path, manifest: Any, engine: Any, threads: int) -> Any:
    """The opened engine: first what can be told without reading a file, then its digests."""
    named = (item for item in engine["requires"].items() if item[0].startswith("onnxruntime"))
    package, least = next(named, ("onnxruntime", ">=1"))
    install = f"this engine needs {package}{least}: pip install '{package}{least}'"
    refuse(not find_spec("onnxruntime"), install, UnfitError)
    if PROVIDERS[engine["target"]][0] != CPU:
        from lepton_compile.runtime.loader_ort_cuda import check_driver

        check_driver()
    check_digests(root, manifest, {engine["model"], *engine["files"]})
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise UnfitError(f"onnxruntime does not import: {error}") from None
    found, wanted = (v.strip(">=").split(".")[:2] for v in (ort.__version__, least))
    old = [*map(int, found)] < [*map(int, wanted)]
    refuse(old, f"{install}, and found {ort.__version__}", UnfitError)
    return _opened(ort, root / engine["model"], manifest, engine, threads)


def _opened(ort: Any, path: Path, manifest: Any, engine: Any, threads: int) -> Any:
    """An InferenceSession of the model at ``path``, on the device of its target."""
    start, providers = ort.InferenceSession, PROVIDERS[engine["target"]]
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    # Threads that spin for their next piece of work, not sleep, make a token a sixth faster.
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(threads > 1)))
    if providers[0] != CPU:
        from lepton_compile.runtime.loader_ort_cuda import start_cuda

        start = start_cuda(ort, bool((manifest["cache"] or {}).get("shared")))
    if engine.get("precision") in ("int8", "auto"):
        from lepton_compile.runtime.loader_saturation import saturates

        options.add_session_config_entry("session.x64quantprecision", str(int(saturates())))
    if engine.get("kernels"):
        from lepton_compile.runtime.loader_kernels import register_kernels

        register_kernels(options, path, engine)
    try:
        session = start(str(path), options, providers=providers)
    except Exception as error:
        raise UnfitError(f"onnxruntime cannot open {path.name}: {error}") from error
    # A provider that does not start is left out with no more than a line on stderr.
    idle = providers[0] not in session.get_providers()
    refuse(idle, f"onnxruntime could not start {providers[0]}: see what it wrote above", UnfitError)
    return session
