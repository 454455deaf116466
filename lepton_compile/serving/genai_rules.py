"""What answers are held to, as far as onnxruntime-genai is told, and what it cannot be told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lepton_compile.artifact import read_manifest

__all__ = ["genai_left_out", "search_rules"]

# Key of the manifest -> what a generation config calls it.
_TOKENS = {"never": "suppress_tokens and bad_words_ids", "first": "begin_suppress_tokens"}
_RULES = {
    "apart": "no_repeat_ngram_size",
    "source_apart": "encoder_no_repeat_ngram_size",
    "least": "min_length",
    "least_new": "min_new_tokens",
    "words": "bad_words_ids",
    "last": "forced_eos_token_id",
}


def search_rules(generation: Mapping[str, Any] | None, target: str) -> dict[str, int]:
    """Options of ``search`` that hold answers to what the manifest's ``generation`` says.

    Both count a prompt, as the loader does. On a GPU its search refuses another size of n-grams
    than 0.
    """
    rules = (generation or {}).get("rules") or {}
    told = {"min_length": rules.get("least") or 0}
    if target == "ort-cpu":
        told["no_repeat_ngram_size"] = rules.get("apart") or 0
    return told


def genai_left_out(artifact: str | Path, target: str | None = None) -> list[str]:
    """Sentences on what a loader holds answers to, and onnxruntime-genai cannot be told.

    Args:
        artifact: folder of a decoder.
        target: the engine that is served; default: the first for ONNX Runtime.

    Raises:
        ArtifactError: the folder is no artifact.
    """
    manifest = read_manifest(artifact)
    own = [entry["target"] for entry in manifest.engines if entry["target"].startswith("ort-")]
    generation = manifest.generation or {}
    told = search_rules(generation, target or next(iter(own), ""))
    rules = generation.get("rules") or {}
    found = [(name, generation[key]) for key, name in _TOKENS.items() if generation.get(key)]
    found += [(_RULES.get(key, key), value) for key, value in rules.items() if value]
    said = ", ".join(f"{name} {value!r:.40}" for name, value in found if name not in told)
    if not said:
        return []
    return [f"the generation config has {said}: left out, onnxruntime-genai cannot be told"]
