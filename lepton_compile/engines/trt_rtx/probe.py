"""Whether this machine builds and runs engines for TensorRT-RTX."""

from __future__ import annotations

from lepton_compile.engines.probe import TargetState
from lepton_compile.engines.tensorrt.flavour import RTX
from lepton_compile.engines.tensorrt.probe import probe_flavour

__all__ = ["probe"]


def probe() -> TargetState:
    """Building needs the package alone, running a GPU that it knows and its driver too."""
    return probe_flavour(RTX)
