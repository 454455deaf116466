"""What this machine can do with a target; every ``engines/<target>/probe.py`` has one ``probe``.

A probe looks packages and devices up without importing a runtime, so that asking costs
milliseconds and cannot fail on a broken installation.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module, metadata

__all__ = ["TargetState", "installed", "probe"]


@dataclass(frozen=True)
class TargetState:
    """A target on this machine.

    Attributes:
        name: as recipes name it.
        builds: this machine can build an engine for it.
        runs: this machine can run one.
        version: of the runtime, where it is installed.
        device: what it would run on, such as ``NVIDIA H100 80GB HBM3 (9.0), driver 580.65``; None
            where there is none or the target needs none.
        reason: why it does not build or run here; empty where both are possible.
        install: the one command that installs what is missing; empty where nothing can be
            installed that would help.
    """

    name: str
    builds: bool
    runs: bool
    version: str | None = None
    device: str | None = None
    reason: str = ""
    install: str = ""


def probe(target: str) -> TargetState:
    """The state of one target of ``engines.TARGETS``."""
    module = import_module(f"lepton_compile.engines.{target.replace('-', '_')}.probe")
    state: TargetState = module.probe()
    return state


def installed(package: str) -> str | None:
    """Version of a pip package, None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
