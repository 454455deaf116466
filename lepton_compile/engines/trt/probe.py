"""Whether this machine builds and runs engines for TensorRT 11."""

from __future__ import annotations

from lepton_compile.engines.probe import TargetState
from lepton_compile.engines.tensorrt.flavour import TRT
from lepton_compile.engines.tensorrt.probe import probe_flavour

__all__ = ["probe"]


def probe() -> TargetState:
    """Building and running both need the package, a GPU and its driver."""
    return probe_flavour(TRT)
