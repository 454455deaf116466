"""Artifacts to export: the tiny ones of the loader's tests, with engines for other targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lepton_compile.artifact import Artifact, ArtifactWriter
from lepton_compile.serving.engine import ServedEngine
from tests.runtime import tiny

__all__ = ["PLAN", "changed", "encoder_with", "engine_of", "resealed"]

PLAN = b"vtrt" + bytes(60) + b"a plan that nothing here opens"


def encoder_with(folder: Path, target: str, **entry: Any) -> Artifact:
    """The tiny encoder with a second engine, a made-up plan, for ``target``."""
    base = tiny.encoder(folder.with_name(f"{folder.name}-base"))
    name = f"engines/{target}/model.plan"
    second = {
        "target": target,
        "model": name,
        "files": [name],
        "requires": {"tensorrt-rtx-cu13": "==1.7.1.116", "cuda-bindings": ">=13"},
        "precision": "fp16",
        "executed": False,
        **entry,
    }
    with ArtifactWriter(folder) as writer:
        for path in base.manifest.files:
            target_path = writer.folder / path
            target_path.parent.mkdir(parents=True, exist_ok=True)
            target_path.write_bytes((base.path / path).read_bytes())
        (writer.folder / name).parent.mkdir(parents=True)
        (writer.folder / name).write_bytes(PLAN)
        model = {**base.manifest.model, "parameters": 2176}
        engines = (*base.manifest.engines, second)
        writer.seal(replace(base.manifest, model=model, engines=engines))
        return writer.publish()


def engine_of(artifact: Artifact, target: str = "ort-cpu") -> ServedEngine:
    """One engine of an artifact."""
    (entry,) = (e for e in artifact.manifest.engines if e["target"] == target)
    return ServedEngine(artifact, entry)


def changed(engine: ServedEngine, entry: Mapping[str, Any] | None = None, **fields: Any) -> Any:
    """The engine with other fields in its entry or in its manifest."""
    manifest = replace(engine.manifest, **fields)
    return ServedEngine(
        replace(engine.artifact, manifest=manifest), {**engine.entry, **(entry or {})}
    )


def resealed(artifact: Artifact, folder: Path, **fields: Any) -> Artifact:
    """A copy of an artifact with other fields in its manifest."""
    with ArtifactWriter(folder) as writer:
        for name in artifact.manifest.files:
            (writer.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (writer.folder / name).write_bytes((artifact.path / name).read_bytes())
        writer.seal(replace(artifact.manifest, **fields))
        return writer.publish()
