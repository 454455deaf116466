"""The model that an artifact came from, found again: what it is compared with, or rebuilt from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lepton_compile.arguments import placed
from lepton_compile.artifact.manifest import REPORT_FILE
from lepton_compile.errors import SourceError
from lepton_compile.export import Source, resolve
from lepton_compile.export.checkpoint.names import summarize
from lepton_compile.export.json_file import read_json

__all__ = [
    "another_model",
    "base_of",
    "origin_of",
    "place_again",
    "source_again",
    "what_differs",
]

# What a model computes goes by these.
DECIDING = re.compile(r"\.(safetensors|gguf|py)$|(^|/)(adapter_)?config\.json$")


def origin_of(folder: Path, manifest: Mapping[str, Any], spec: str | None, trusted: bool) -> Source:
    """The source that the artifact in ``folder`` was built from, or the one named instead.

    Args:
        trusted: Python files that come with it may run. That whoever built the artifact trusted
            them is no reason to.

    Raises:
        SourceError: it is not there any more, is another one by now, needs code that is not
            trusted, or no source is named.
    """
    adapter = (manifest.get("model") or {}).get("adapter")
    where = spec or source_again(folder, manifest)
    source = resolve(where, Path.cwd(), trusted, adapter=adapter and place_again(folder, adapter))
    if spec is None and (found := what_differs(source, manifest)):
        raise another_model(source, found, "; any that is named is taken")
    return source


def source_again(path: Path, manifest: Mapping[str, Any]) -> str:
    """Where the model was; of the hub at the commit that was built from, whatever was asked for: a
    branch goes on. Raises SourceError where nothing is recorded."""
    recorded = (manifest.get("model") or {}).get("source")
    if not recorded:
        raise SourceError(
            "the manifest does not say what the artifact was made from",
            where="manifest.model.source",
            hint="name it with --model",
        )
    revision = (manifest.get("lock") or {}).get("revision")
    if recorded.startswith("hf:") and revision:
        return f"{recorded.partition('@')[0]}@{revision}"
    return place_again(path, recorded)


def place_again(path: Path, recorded: str) -> str:
    """A path of the recipe's as seen from the folder that it was in, or from here, if it is there;
    as it was written where it is not, or is no path."""
    if recorded.startswith(("hf:", "package:")):
        return recorded
    places = [placed(recorded, base, "model") for base in (base_of(path), Path.cwd()) if base]
    return next((str(place) for place in places if place.exists()), recorded)


def base_of(path: Path) -> Path | None:
    """The folder that the recipe of an artifact was in, as its report has it; of a manifest that is
    kept alone its own, for it lies beside the recipe. None where nothing says so."""
    alone = path.is_file()
    folder = path.absolute().parent if alone else path
    try:
        return Path(read_json(folder / REPORT_FILE)["capture"]["base"])
    except (OSError, ValueError, LookupError, TypeError):
        return folder if alone else None


def what_differs(source: Source, manifest: Mapping[str, Any]) -> str:
    """Weights, configuration, code and adapter that are not those of the build; empty if all are.

    The hub's at the commit that was built from are: whole files need not be read.
    """
    lock = manifest.get("lock") or {}
    was = lock.get("inputs") or {}
    if source.adapter is None and source.revision and source.revision == lock.get("revision"):
        return ""
    known = {name: digest for name, digest in was.items() if DECIDING.search(name)}
    now = source.digests() if known else {}
    other = [name for name, digest in known.items() if now.get(name) != digest]
    return f"another {', '.join(summarize(other))}" if other else ""


def another_model(source: Source, found: str, more: str = "") -> SourceError:
    """The error of a source that an artifact was not made from; ``more`` ends its hint."""
    return SourceError(
        "the model is not what the artifact was made from",
        where=str(source.path),
        found=found,
        hint=f"name the model that it was made from with --model{more}",
    )
