"""Whether this machine runs engines for ONNX Runtime on the CPU; it builds them always."""

from __future__ import annotations

from importlib.util import find_spec

from lepton_compile.engines.probe import TargetState, installed

__all__ = ["LEAST", "at_least", "probe"]

LEAST = "1.30"
"""The oldest onnxruntime that has every kernel our graphs use."""


def probe() -> TargetState:
    """Building needs nothing beyond the package itself; running needs onnxruntime."""
    name = "ort-cpu"
    # The GPU package brings the CPU's kernels too.
    version = installed("onnxruntime") or installed("onnxruntime-gpu")
    if version is None or find_spec("onnxruntime") is None:
        install = "pip install 'lepton-compile[cpu]'"
        return TargetState(
            name, True, False, reason="onnxruntime is not installed", install=install
        )
    if not at_least(version, LEAST):
        reason = f"onnxruntime {LEAST} or newer is needed"
        return TargetState(name, True, False, version, reason=reason, install=_upgrade())
    return TargetState(name, True, True, version)


def at_least(version: str, least: str) -> bool:
    """Whether ``version`` is at least ``least``, by major and minor number."""
    return _numbers(version) >= _numbers(least)


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:2]
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in parts)


def _upgrade() -> str:
    package = "onnxruntime" if installed("onnxruntime") else "onnxruntime-gpu"
    return f"pip install -U '{package}>={LEAST}'"
