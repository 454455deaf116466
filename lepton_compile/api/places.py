"""Where a build's model comes from and its engines go: a graph and a folder for each, and the
artifact itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx_ir as ir

from lepton_compile.errors import located
from lepton_compile.export import Source, resolve
from lepton_compile.export.source.adapter import locate_adapter
from lepton_compile.recipe import Recipe

__all__ = ["ENGINES", "SHARED", "copies_of", "output_of", "place_of", "source_of"]

ENGINES = "engines"
"""Folder of the engines in an artifact, one folder for each target in it."""

SHARED = f"{ENGINES}/ort"
"""Folder of the engines of ONNX Runtime where there are several: equal weights are kept once."""


FILES = (".gguf", ".onnx")

NAMELESS = "model"
"""The name of many a model's file or folder: that of the folder around it tells more."""


def source_of(recipe: Recipe, *, weights: bool = True) -> Source:
    """The model of a recipe, with its adapter. Args, errors: as ``resolve``."""
    with located(recipe.place("model")):
        source = resolve(recipe.model, recipe.base, recipe.trust_remote_code, weights=weights)
    if recipe.adapter is not None:
        with located(recipe.place("adapter")):
            source.adapter = locate_adapter(recipe.adapter, recipe.base, weights=weights)
    return source


def copies_of(model: ir.Model, targets: Sequence[str]) -> Iterator[tuple[str, ir.Model]]:
    """Each target with a graph of its own; they share tensors, and the last takes the original."""
    *others, last = targets
    for target in others:
        yield target, model.clone()
    yield last, model


def place_of(target: str, targets: Sequence[str]) -> str:
    """Folder of an engine in the artifact: its own, or that of all of ONNX Runtime.

    ONNX Runtime reads weights from the model's own folder only, so engines that share them lie side
    by side.
    """
    able = [each for each in targets if each.startswith("ort-")]
    return SHARED if target in able and len(able) > 1 else f"{ENGINES}/{target}"


def output_of(recipe: Recipe) -> Path:
    """The folder of the artifact where a build is not told one."""
    if recipe.output is not None:
        return Path(recipe.output)
    parts = [_stem(part) for part in recipe.model.rstrip("/").rpartition(":")[2].split("/")]
    name = next((part for part in reversed(parts) if part != NAMELESS), "")
    return Path("out") / f"{name.strip('.') or NAMELESS}-{recipe.quantize.format}"


def _stem(part: str) -> str:
    """A part of a model's place without its revision and ending; of a folder, such as
    Qwen2.5-0.5B, the whole is its name."""
    name = part.split("@")[0]
    return Path(name).stem if name.endswith(FILES) else name
