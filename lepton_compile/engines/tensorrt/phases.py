"""Phases of the builder in words that people understand."""

from __future__ import annotations

__all__ = ["readable"]

_NAMES = {
    "Building engine": "building the engine",
    "Cloning network graph": "copying the graph",
    "Preparing graph for optimization": "preparing the graph",
    "Building engine from subgraph": "building the engine",
    "Optimizing graph": "fusing layers",
    "Computing profile costs": "compiling for each profile",
    "Timing tactics": "choosing kernels",
    "Timing graph nodes": "choosing kernels",
    "Timing tensor reformats": "choosing tensor layouts",
    "Computing reformatting costs": "choosing tensor layouts",
    "Determining refit engines": "finishing a profile",
}


def readable(phase: str) -> str:
    """The phase for a progress display; one that is not known keeps its own name."""
    return _NAMES.get(phase, phase[:1].lower() + phase[1:])
