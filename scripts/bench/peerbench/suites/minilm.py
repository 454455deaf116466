"""Running all-MiniLM-L6-v2: latency for three shapes, and how near the embeddings are."""

from __future__ import annotations

from typing import Any

import numpy as np

from peerbench.inputs import encoder_batches, minilm_folder
from peerbench.turns import Settings, Tool, take_turns

__all__ = ["TOOLS", "measure"]

SECONDS = 2.0
REFERENCE = "torch eager fp32"


def _peer(name: str, environment: str, runner: str, variant: str) -> Tool:
    work = f"minilm-{environment}-{variant}"
    return Tool(name, environment, runner, {"variant": variant}, work=work)


TOOLS = (
    Tool("lepton int8", "lepton", "lepton_minilm", build=("minilm/ort-cpu-int8",), work="minilm-8"),
    Tool(
        "lepton fp32", "lepton", "lepton_minilm", build=("minilm/ort-cpu-fp32",), work="minilm-32"
    ),
    Tool(REFERENCE, "torch", "torch_minilm", prepares=False),
    _peer("onnxruntime fp32", "torch", "onnxruntime_minilm", "fp32"),
    _peer("onnxruntime fp32 fused", "torch", "onnxruntime_minilm", "fused"),
    _peer("onnxruntime int8 dynamic", "torch", "onnxruntime_minilm", "int8"),
    _peer("OpenVINO default", "openvino", "openvino_minilm", "default"),
    _peer("OpenVINO fp32", "openvino", "openvino_minilm", "fp32"),
    _peer("OpenVINO int8 weights", "openvino", "openvino_minilm", "int8-weights"),
    _peer("OpenVINO int8 (NNCF)", "openvino", "openvino_minilm", "int8"),
    _peer("CTranslate2 fp32", "ctranslate2", "ctranslate2_minilm", "float32"),
    _peer("CTranslate2 int8", "ctranslate2", "ctranslate2_minilm", "int8"),
)


def measure(settings: Settings) -> dict[str, Any]:
    """Milliseconds per call, and the lowest cosine to PyTorch over 32 embeddings."""
    common = {
        "folder": str(minilm_folder()),
        "batches": str(encoder_batches(settings.cache)),
        "seconds": 0.1 if settings.smoke else SECONDS,
    }
    tools = take_turns(TOOLS, settings, common)
    if "rounds" in tools.get(REFERENCE, {}):
        reference = _embeddings(tools[REFERENCE])
        for result in tools.values():
            if "rounds" in result:
                cosines = (_embeddings(result) * reference).sum(axis=1)
                result["median"]["cosine"] = float(cosines.min())
    for result in tools.values():
        for once in result.get("rounds", ()):
            del once["embeddings"]  # Where they lie says nothing about the tool.
    return {"conditions": {"seconds_per_shape": common["seconds"]}, "tools": tools}


def _embeddings(result: dict[str, Any]) -> np.ndarray:
    return np.asarray(np.load(result["rounds"][0]["embeddings"]))
