"""The emitted loader: what it costs to import, and how long it is."""

from __future__ import annotations

from typing import Any

from peerbench.turns import Settings, Tool, take_turns

__all__ = ["measure"]

TOOLS = (
    Tool("lepton", "lepton", "lepton_import", build=("minilm/ort-cpu-int8",), work="minilm-8"),
)


def measure(settings: Settings) -> dict[str, Any]:
    """Milliseconds beyond those of a bare interpreter, numpy's import included; lines."""
    return {"conditions": {}, "tools": take_turns(TOOLS, settings, {})}
