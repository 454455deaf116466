"""What a folder is that holds no model, and what to name in its place."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from lepton_compile.errors import SourceError
from lepton_compile.export.checkpoint.adapter_settings import ADAPTER_CONFIG
from lepton_compile.export.source.modules import MODULES
from lepton_compile.export.source.objects import read_object

__all__ = ["adapter_alone", "no_model"]

FILES = (".gguf", ".onnx")
# A part of a pipeline, or the snapshot of a commit in the hub's cache.
BELOW = ("*/config.json", "*/*/config.json")
MOST = 5


def no_model(folder: Path) -> SourceError:
    """The error for a folder without a config.json, with what of it could be meant."""
    if (folder / ADAPTER_CONFIG).is_file():
        return adapter_alone(folder)
    return SourceError(
        "The folder is not a Hugging Face model: it has no config.json.",
        where=str(folder),
        available=sorted(path.name for path in folder.iterdir())[:20],
        hint=_meant(folder),
    )


def adapter_alone(folder: Path) -> SourceError:
    """The error for an adapter that is named as a model, with the base that it says it is of."""
    base = read_object(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    return SourceError(
        "The folder holds an adapter, not a model.",
        where=str(folder),
        found=f"base_model_name_or_path: {base!s:.200}" if base else ADAPTER_CONFIG,
        hint="Name its base as the model, and this folder with --adapter (`adapter:` in a recipe).",
    )


def _meant(folder: Path) -> str | None:
    if files := sorted(str(path) for path in folder.iterdir() if path.suffix in FILES):
        return f"Name the file: {_some(files)}."
    found = chain.from_iterable(folder.glob(each) for each in BELOW)
    if places := sorted(str(path.parent) for path in found):
        pooled = (folder / MODULES).is_file()  # of sentence-transformers, whose list stays behind
        more = ", and the pooling that its modules say (pooling: mean)" * pooled
        return f"Name the folder that holds the model{more}: {_some(places)}."
    return "Name the folder that save_pretrained wrote, or download it again, whole."


def _some(places: list[str]) -> str:
    more = len(places) - MOST
    return ", ".join(places[:MOST]) + (f" and {more} more" if more > 0 else "")
