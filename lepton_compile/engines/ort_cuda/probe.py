"""Whether this machine runs engines for ONNX Runtime on an NVIDIA GPU; it builds them always."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from lepton_compile.engines.gpu import gpu_text
from lepton_compile.engines.ort_cpu.probe import at_least
from lepton_compile.engines.probe import TargetState, installed

__all__ = ["LEAST", "PACKAGE", "probe"]

PACKAGE = "onnxruntime-gpu"
# The version that the kernels were tried with, and the first that has all of them.
LEAST = "1.31"
PROVIDER = "libonnxruntime_providers_cuda.so"


def probe() -> TargetState:
    """Building needs no GPU; running needs onnxruntime-gpu, a driver and a GPU."""
    name, version, device = "ort-cuda", installed(PACKAGE), gpu_text()
    reason, install = _missing(version)
    if device is None:
        # Nothing that pip brings makes a GPU: the command is named only where it is the last step.
        lacks = "no NVIDIA GPU with a working driver"
        return TargetState(
            name, True, False, version, reason=f"{lacks}; {reason}" if reason else lacks
        )
    if reason:
        return TargetState(name, True, False, version, device, reason, install)
    return TargetState(name, True, True, version, device)


def _missing(version: str | None) -> tuple[str, str]:
    """What keeps the runtime from working and the command against it; empty where nothing does."""
    install = f"pip install '{PACKAGE}>={LEAST}'"
    if version is None:
        if installed("onnxruntime"):
            # Both packages hold the same import package, and the CPU's would stay in the way.
            install = f"pip uninstall -y onnxruntime && {install}"
        return f"{PACKAGE} is not installed", install
    if not at_least(version, LEAST):
        return f"{PACKAGE} {LEAST} or newer is needed", install.replace("install", "install -U")
    if installed("onnxruntime") and not _has_provider():
        again = f"pip uninstall -y onnxruntime && pip install --force-reinstall {PACKAGE}"
        return "onnxruntime stands over onnxruntime-gpu and hides its GPU kernels", again
    return "", ""


def _has_provider() -> bool:
    found = find_spec("onnxruntime")
    folders = found.submodule_search_locations if found else None
    return any((Path(folder) / "capi" / PROVIDER).is_file() for folder in folders or ())
