"""Engine builders: one folder for each target, with the same files in each.

``contract`` says what a builder takes and gives, ``builder`` finds the one of a target.
"""

from __future__ import annotations

from importlib import import_module

from .contract import BuiltEngine, EngineBuilder, EngineJob

__all__ = ["TARGETS", "BuiltEngine", "EngineBuilder", "EngineJob", "builder"]

TARGETS = ("ort-cpu", "ort-cuda", "trt-rtx", "trt")
"""Every target, the embedded default first."""


def builder(target: str) -> EngineBuilder:
    """The ``build`` of a target; imports its module, which imports a runtime only when called."""
    module = import_module(f"{__name__}.{target.replace('-', '_')}.build")
    build: EngineBuilder = module.build
    return build
