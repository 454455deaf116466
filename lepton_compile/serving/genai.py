"""A folder that onnxruntime-genai opens: the engine as it is, and what describes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lepton_compile.artifact import Manifest
from lepton_compile.errors import ArtifactError
from lepton_compile.serving.engine import ServedEngine, open_engine
from lepton_compile.serving.genai_config import PROVIDERS, genai_config
from lepton_compile.serving.last_logits import last_logits
from lepton_compile.serving.output import OutputFolder

__all__ = ["export_genai"]

CONFIG_FILE = "genai_config.json"

# The model's own small files that the server or its tokenizer may read, where there are any.
_ASSETS = ("config.json", "generation_config.json", "special_tokens_map.json")


def export_genai(
    artifact: str | Path,
    output: str | Path,
    *,
    target: str | None = None,
    last_logits_only: bool = False,
    copy: bool = False,
) -> Path:
    """Write a folder for ``onnxruntime_genai.Model``.

    Args:
        artifact: folder of a decoder with an engine for ONNX Runtime.
        output: folder to make; it must not exist.
        target: ``ort-cpu`` or ``ort-cuda``; default: the first that the artifact has.
        last_logits_only: a graph with one constant changed, which does not compute the logits of a
            whole prompt: prompts are read faster and in less memory. Without it the engine's files
            are the artifact's, byte for byte.
        copy: copy the files instead of linking them.

    Returns:
        The folder.

    Raises:
        ArtifactError: the artifact is not intact, is no decoder, or the output exists.
    """
    engine = open_engine(artifact, tuple(PROVIDERS), "onnxruntime-genai", target)
    _refuse_encoders(engine)
    root = engine.artifact.path
    settings = _read(root / "generation_config.json")
    config = genai_config(engine, _read(root / "config.json"), settings)
    with OutputFolder(output, copy=copy) as folder:
        for name, path in engine.files().items():
            if last_logits_only and path == engine.model_file:
                folder.write(name, last_logits(path))
            else:
                folder.place(path, name)
        for name in _assets(engine.manifest):
            folder.place(engine.artifact.path / name, Path(name).name)
        folder.write(CONFIG_FILE, json.dumps(config, indent=2) + "\n")
    return folder.output


def _refuse_encoders(engine: ServedEngine) -> None:
    if engine.manifest.task == "text-generation" and engine.manifest.cache is not None:
        return
    triton = "encoders are served by Triton: lepton-compile export triton DIR -o REPOSITORY"
    raise ArtifactError(
        "onnxruntime-genai runs decoders with a KV cache",
        found=f"{engine.manifest.task}, {'with' if engine.manifest.cache else 'without'} a cache",
        hint="serve it by its own loader.py" if engine.entry.get("encoder") else triton,
    )


def _assets(manifest: Manifest) -> list[str]:
    tokenizer = [name for name in (manifest.tokenizer or {}).values() if name]
    return [*tokenizer, *(name for name in _ASSETS if name in manifest.files)]


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}
