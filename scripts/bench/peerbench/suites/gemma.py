"""Running Gemma 3 270M: a prompt of 512 tokens, greedy, batch 1."""

from __future__ import annotations

from typing import Any

from peerbench.gemma_folder import gemma_folder, gemma_gguf
from peerbench.inputs import prompt_ids
from peerbench.turns import Settings, Tool, take_turns

__all__ = ["TOOLS", "measure"]

PROMPT, NEW_TOKENS, REPEATS = 512, 64, 2

TOOLS = (
    Tool("lepton int4", "lepton", "lepton_gemma", build=("gemma3-270m/ort-cpu-int4",)),
    Tool("lepton int8", "lepton", "lepton_gemma", build=("gemma3-270m/ort-cpu-int8",)),
    Tool("llama.cpp Q4_K_M", "llamacpp", "llamacpp_gemma", prepares=False),
    Tool("onnxruntime-genai int4", "genai", "genai_gemma", work="gemma-genai"),
    Tool("genai graph in onnxruntime", "genai", "genai_graph_gemma", work="gemma-genai"),
    Tool("OpenVINO GenAI int4", "openvino", "openvino_gemma", work="gemma-openvino"),
    Tool("torch eager fp32", "torch", "torch_gemma", prepares=False),
)


def measure(settings: Settings) -> dict[str, Any]:
    """Prefill and decode, tokens per second, and the memory of the process."""
    folder = gemma_folder(settings.cache)
    prompt, new = (32, 8) if settings.smoke else (PROMPT, NEW_TOKENS)
    common = {
        "folder": str(folder),
        "gguf": str(gemma_gguf(settings.cache)),
        "ids": prompt_ids(folder, prompt),
        "new_tokens": new,
        "repeats": 1 if settings.smoke else REPEATS,
    }
    conditions = {"prompt": prompt, "new_tokens": new, "repeats": common["repeats"]}
    return {"conditions": conditions, "tools": take_turns(TOOLS, settings, common)}
