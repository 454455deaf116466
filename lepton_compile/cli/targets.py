"""``lepton-compile targets``: what this machine can build and run, and why not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec

import click

from lepton_compile.cli.output import console, emit_json, json_option, table

__all__ = ["TargetState", "target_states", "targets"]

LEAST_ONNXRUNTIME = (1, 30)

LATER = {
    "ort-cuda": "onnxruntime-gpu",
    "trt-rtx": "tensorrt-rtx-cu13 and cuda-bindings",
    "trt": "tensorrt-cu13 and cuda-bindings",
}
"""Targets without a builder in this version, and the packages they will need."""


@dataclass(frozen=True)
class TargetState:
    """A target on this machine.

    Attributes:
        name: as recipes name it.
        builds: this machine can build it.
        runs: this machine can run it.
        version: of the runtime, where it is installed.
        reason: why not, and what to do; empty where both are possible.
    """

    name: str
    builds: bool
    runs: bool
    version: str | None
    reason: str


def target_states() -> list[TargetState]:
    """Every target of the recipe schema, looked up without importing a runtime."""
    return [_ort_cpu(), *(_later(name, needs) for name, needs in LATER.items())]


@click.command()
@json_option
def targets(as_json: bool) -> None:
    """Show what this machine can build and run, and why not."""
    states = target_states()
    if as_json:
        emit_json([asdict(state) for state in states])
        return
    rows = [
        (s.name, "yes" if s.builds else "no", "yes" if s.runs else "no", s.version or "-", s.reason)
        for s in states
    ]
    console().print(table("Targets", ("target", "builds", "runs", "version", "why not"), rows))


def _ort_cpu() -> TargetState:
    try:
        version = metadata.version("onnxruntime")
    except metadata.PackageNotFoundError:
        version = None
    if version is None or find_spec("onnxruntime") is None:
        reason = "onnxruntime is not installed: pip install 'lepton-compile[cpu]'"
        return TargetState("ort-cpu", True, False, None, reason)
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if numbers < LEAST_ONNXRUNTIME:
        least = ".".join(map(str, LEAST_ONNXRUNTIME))
        reason = f"onnxruntime {least} or newer is needed: pip install -U onnxruntime"
        return TargetState("ort-cpu", True, False, version, reason)
    return TargetState("ort-cpu", True, True, version, "")


def _later(name: str, needs: str) -> TargetState:
    reason = f"no builder in this version; it will need {needs} and an NVIDIA driver to run"
    return TargetState(name, False, False, None, reason)
