"""What a machine can do with a TensorRT, from its packages and its driver alone."""

from __future__ import annotations

from importlib.util import find_spec

from lepton_compile.engines.gpu import Driver, Gpu, driver, gpu_text, gpus
from lepton_compile.engines.probe import TargetState, installed
from lepton_compile.engines.tensorrt.flavour import Flavour

__all__ = ["CUDA", "probe_flavour"]

CUDA = 13
"""Least CUDA that the driver has to know: both packages are built against it."""


def probe_flavour(flavour: Flavour) -> TargetState:
    """The state of a target; loads neither the library nor CUDA's runtime."""
    version = installed(flavour.package)
    device = _no_device(flavour, gpus(), driver())
    if version is None or find_spec(flavour.module) is None:
        return _absent(flavour, device)
    reason, install = device, ""
    if not reason and installed("cuda-bindings") is None:
        reason, install = "cuda-bindings is not installed", flavour.install
    builds = bool(flavour.capabilities) or not reason or bool(install)
    runs = not reason
    if reason and flavour.capabilities:
        reason = f"it builds here; to run: {reason}"
    return TargetState(flavour.target, builds, runs, version, gpu_text(), reason, install)


def _absent(flavour: Flavour, device: str) -> TargetState:
    """Without the package; ``device`` is what else is in the way."""
    reason, install = f"{flavour.title} is not installed", flavour.install
    if device and flavour.capabilities:
        reason = f"{reason}; with it, engines build here; to run them: {device}"
    elif device:
        # Nothing that pip brings makes a GPU: the command is named only where it is the last step.
        reason, install = f"{device}; {reason}", ""
    return TargetState(
        flavour.target, False, False, device=gpu_text(), reason=reason, install=install
    )


def _no_device(flavour: Flavour, found: tuple[Gpu, ...], known: Driver | None) -> str:
    """Why no GPU of this machine runs its engines; empty where one does."""
    if known is None:
        return "there is no NVIDIA driver"
    if known.cuda is None:
        return f"the NVIDIA driver {known.release} does not open"
    if int(known.cuda.split(".")[0]) < CUDA:
        return f"the driver knows CUDA {known.cuda}, {CUDA}.0 or newer is needed"
    if not found:
        return "the NVIDIA driver sees no GPU"
    own = [gpu.compute_capability for gpu in found]
    if flavour.capabilities and not set(own) & set(flavour.capabilities):
        known_ones = ", ".join(flavour.capabilities)
        return f"the GPU is a {own[0]}, engines are for {known_ones}"
    return ""
