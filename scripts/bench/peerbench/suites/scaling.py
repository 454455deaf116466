"""Tracing Gemma's configuration with 18 layers and with 72."""

from __future__ import annotations

from typing import Any

from peerbench.gemma_folder import gemma_folder
from peerbench.turns import Settings, Tool, take_turns

__all__ = ["measure"]

LAYERS = (18, 72)


def measure(settings: Settings) -> dict[str, Any]:
    """Seconds to capture each depth, and the ratio of the deepest to the shallowest."""
    tools = [
        Tool(f"lepton, {n} layers", "project", "lepton_trace", {"layers": n}, prepares=False)
        for n in LAYERS
    ]
    results = take_turns(tools, settings, {"folder": str(gemma_folder(settings.cache))})
    times = [result["median"]["trace_s"] for result in results.values() if "median" in result]
    found: dict[str, Any] = {"conditions": {"layers": LAYERS}, "tools": results}
    if len(times) == len(LAYERS):
        found["ratio"] = times[-1] / times[0]
    return found
