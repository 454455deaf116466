"""Compiling Gemma 3 270M: a folder with fp32 weights becomes int4; wall time, memory and disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from peerbench import child
from peerbench.environments import environment, lepton_command
from peerbench.gemma_folder import gemma_folder
from peerbench.turns import Settings, Tool, take_turns

__all__ = ["TOOLS", "measure"]

TOOLS = (
    Tool("lepton int4", "project", ""),
    Tool("onnxruntime-genai int4", "genai", "genai_gemma"),
    Tool("optimum-intel int4", "openvino", "openvino_gemma"),
)


def measure(settings: Settings) -> dict[str, Any]:
    """Each tool's own command, as a process of its own; ours without check and verification."""
    folder = gemma_folder(settings.cache)
    output = settings.cache / "models" / "compiled"

    def turn(tool: Tool) -> dict[str, Any]:
        shutil.rmtree(output, ignore_errors=True)
        try:
            wall, peak = _compile(tool, folder, output, settings)
            return {"wall_s": wall, "peak_mb": peak, "disk_mb": _megabytes(output)}
        finally:
            shutil.rmtree(output, ignore_errors=True)

    conditions = {"input": "a folder with fp32 safetensors, 1.07 GB"}
    return {"conditions": conditions, "tools": take_turns(TOOLS, settings, {}, turn)}


def _compile(tool: Tool, folder: Path, output: Path, settings: Settings) -> tuple[float, float]:
    """Wall seconds and peak megabytes."""
    if tool.environment == "project":
        options = ("--task", "text-generation", "--quantize", "int4", "--no-check", "--no-verify")
        command = lepton_command("build", "--model", folder, *options, "--quiet", "-o", output)
        done = child.run(command, settings.threads)
        return done.wall_s, done.peak_mb
    python = environment(tool.environment, settings.cache)
    job = {"folder": str(folder), "work": str(output), "threads": settings.threads}
    result = child.runner(python, tool.runner, "prepare", job)
    return float(result["wall_s"]), float(result["peak_mb"])


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
