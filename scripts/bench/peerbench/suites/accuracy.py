"""What quantization costs: each engine against fp32 PyTorch, as ``verify`` measures it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from peerbench.turns import Settings, Tool, take_turns

__all__ = ["measure"]

RECIPES = (
    "minilm/ort-cpu-fp32",
    "minilm/ort-cpu-int8",
    "gemma3-270m/ort-cpu-fp32",
    "gemma3-270m/ort-cpu-int8",
    "gemma3-270m/ort-cpu-int4",
    "gemma3-270m/ort-cpu-int4-awq",
    "gemma3-270m/ort-cpu-int4-gptq",
    "gemma3-270m/ort-cpu-auto",
)


def measure(settings: Settings) -> dict[str, Any]:
    """One round is enough: the same numbers come out each time."""
    tools = [
        Tool(recipe, "project", "lepton_accuracy", build=(recipe,), work=recipe.replace("/", "-"))
        for recipe in RECIPES
    ]
    return {
        "rounds": 1,
        "conditions": {},
        "tools": take_turns(tools, replace(settings, rounds=1), {}),
    }
