"""Engines of ONNX Runtime: how a session is opened."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from lepton_compile.runtime.loader_guard import UnfitError, check_digests, failing, refuse

__all__ = ["open_onnxruntime"]


def open_onnxruntime(root: Path, manifest: Any, engine: Any, threads: int) -> Any:
    """A session: first what can be told without reading a file, then digests, then the runtime."""
    named = (item for item in engine["requires"].items() if item[0].startswith("onnxruntime"))
    package, least = next(named, ("onnxruntime", ">=1"))
    install = f"this engine needs {package}{least}: pip install '{package}{least}'"
    providers = ["CPUExecutionProvider"]
    if engine["target"] == "ort-cuda":
        from lepton_compile.runtime.loader_ort_cuda import PROVIDERS, check_driver

        check_driver()
        providers = PROVIDERS
    check_digests(root, manifest, {engine["model"], *engine["files"]})
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else it reports what it runs
    with failing(install, UnfitError):
        import onnxruntime as ort
    found, wanted = ([*map(int, re.findall(r"\d{1,9}", v)[:2])] for v in (ort.__version__, least))
    refuse(found < wanted, f"{install}, and found {ort.__version__}", UnfitError)
    path, options, start = root / engine["model"], ort.SessionOptions(), ort.InferenceSession
    options.log_severity_level, options.intra_op_num_threads = 4, threads
    if "CUDAExecutionProvider" in providers:
        from lepton_compile.runtime.loader_ort_cuda import start_cuda

        # Where a decoder reads what an encoder gave, steps are not the same from call to call.
        same = not engine.get("encoder") and (manifest.get("cache") or {}).get("shared")
        start = start_cuda(ort, bool(same))
    if engine.get("saturates", engine.get("precision") in ("int8", "auto", "stored")):
        from lepton_compile.runtime.loader_saturation import saturates

        # Its exact, slower kernels for that: kOrtSessionOptionsAvx2PrecisionMode.
        options.add_session_config_entry("session.x64quantprecision", str(int(saturates())))
    if engine.get("kernels"):
        from lepton_compile.runtime.loader_kernels import register_kernels

        register_kernels(options, root, engine)
    with failing(f"onnxruntime cannot open {path.name} with {threads} threads", UnfitError):
        # Threads that spin for work make a token a sixth faster; beyond 0.1 ms they hinder others.
        options.add_session_config_entry("session.intra_op.spin_duration_us", "100")
        if told := (manifest.get("generation") or {}).get("pictures"):
            from lepton_compile.runtime.loader_seer import Seer

            sees = start(str(root / engine["encoder"]), options, providers=providers)
            if told.get("grid"):
                from lepton_compile.runtime.loader_grids import GridSeer

                return GridSeer(sees, start(str(path), options, providers=providers), told)
            return Seer(sees, start(str(path), options, providers=providers), told)
        if engine.get("encoder"):
            from lepton_compile.runtime.loader_source import Pair

            first = start(str(root / engine["encoder"]), options, providers=providers)
            second = start(str(path), options, providers=providers)
            if engine["target"] == "ort-cuda":
                from lepton_compile.runtime.loader_cuda_pair import CudaPair

                return CudaPair(first, second)
            return Pair(first, second)
        return start(str(path), options, providers=providers)
