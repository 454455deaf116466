"""Compiling 8 billion parameters under a ceiling of 3 GB."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

from peerbench import child
from peerbench.environments import lepton_command
from peerbench.llama_shaped import SHAPE, SMALL, write_checkpoint
from peerbench.turns import Settings, Tool, take_turns

__all__ = ["measure"]

CEILING = "3GB"


def measure(settings: Settings) -> dict[str, Any]:
    """Peak memory and wall time; the checkpoint and what was made of it are deleted."""
    folder = settings.scratch / "llama-shaped"
    source, output = folder / "model", folder / "artifact"
    options = ("--task", "text-generation", "--quantize", "int4", "--max-memory", CEILING)
    quick = ("--no-check", "--no-verify", "--quiet")

    def turn(tool: Tool) -> dict[str, Any]:
        command = lepton_command("build", "--model", source, *options, *quick, "-o", output)
        done = child.run(command, settings.threads)
        bytes_written = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
        return {"wall_s": done.wall_s, "peak_mb": done.peak_mb, "disk_mb": bytes_written / 1e6}

    try:
        parameters = write_checkpoint(source, SMALL if settings.smoke else SHAPE)
        tools = [Tool("lepton int4", "project", "")]
        results = take_turns(tools, replace(settings, rounds=1), {}, turn)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    conditions = {"parameters": parameters, "ceiling": CEILING}
    return {"rounds": 1, "conditions": conditions, "tools": results}
