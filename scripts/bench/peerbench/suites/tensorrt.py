"""Plans of TensorRT-RTX, built without a GPU: wall time, memory, and bytes beside the weights'.

Nothing is executed: a plan needs a GPU of compute capability 8.x or 12.x to run.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from peerbench import child
from peerbench.environments import lepton_command
from peerbench.gemma_folder import gemma_folder
from peerbench.turns import Settings, Tool, take_turns

__all__ = ["TOOLS", "measure"]

_INT4 = ("gemma3-270m/trt-rtx-int4", "--set")
_GROUPS = {size: (*_INT4, f"quantize.group={size}") for size in (32, 64, 128)}
TOOLS = (
    Tool("lepton minilm fp16", "project", "", build=("minilm/trt-rtx-fp16",)),
    Tool(
        "lepton minilm fp16, 3 compute capabilities",
        "project",
        "",
        build=("minilm/trt-rtx-fp16", "--set", "compute_capabilities=[8.6, 8.9, 12.0]"),
    ),
    Tool("lepton gemma bf16", "project", "", build=("gemma3-270m/trt-rtx-bf16",)),
    *(Tool(f"lepton gemma int4, group {n}", "project", "", build=b) for n, b in _GROUPS.items()),
    Tool(
        "lepton gemma int4, group 128, one profile",
        "project",
        "",
        build=(*_GROUPS[128], "--set", "profiles=joint"),
    ),
    Tool(
        "lepton gemma int4, group 128, 3 compute capabilities",
        "project",
        "",
        build=(*_GROUPS[128], "--set", "compute_capabilities=[8.6, 8.9, 12.0]"),
    ),
)


def measure(settings: Settings) -> dict[str, Any]:
    """Each recipe as a process of its own, without check; Gemma from a folder of fp32 weights."""
    folder = gemma_folder(settings.cache)
    output = settings.cache / "models" / "compiled"

    def turn(tool: Tool) -> dict[str, Any]:
        source = ("--model", folder) if "gemma" in tool.name else ()
        options = ("--no-check", "--no-verify", "--quiet", "--force", "--output", output)
        try:
            command = lepton_command("build", *tool.build, *source, *options)
            done = child.run(command, settings.threads)
            return {"wall_s": done.wall_s, "peak_mb": done.peak_mb, **_plan(output)}
        finally:
            shutil.rmtree(output, ignore_errors=True)

    conditions = {
        "executed": "false",
        "peak_mb": "of the larger of the two processes, compiler and builder",
        "plan_over_weights": "bytes of the plan over parameters times bits of a weight",
    }
    return {"conditions": conditions, "tools": take_turns(TOOLS, settings, {}, turn)}


def _plan(folder: Path) -> dict[str, float]:
    """What the report says of the plan, and its size beside what the weights alone need."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    engine, built = report["engines"][0], report["builders"]["trt-rtx"]
    bits = {"int4": 4, "int8": 8, "fp8": 8}.get(engine["precision"], 16)
    weights = report["model"]["parameters"] * bits / 8
    return {
        "builder_s": built["seconds"]["build"],
        "plan_mb": built["plan_bytes"] / 1e6,
        "plan_over_weights": built["plan_bytes"] / weights,
    }
