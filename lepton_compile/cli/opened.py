"""The PyTorch model an artifact came from: what ``verify`` and ``bench`` compare with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lepton_compile.export import Source

__all__ = ["precision_of", "reference_of", "source_of", "source_option"]

source_option = click.option(
    "--model", "spec", metavar="M", help="Where the source is now; default: as the manifest says."
)


def source_of(manifest: dict[str, Any], spec: str | None) -> Source:
    """The source that the artifact was built from, or the one named instead.

    Raises:
        SourceError: it is not there any more, or no source is named.
    """
    from lepton_compile.errors import SourceError
    from lepton_compile.export import resolve

    recorded = manifest.get("model") or {}
    where = spec or recorded.get("source")
    if not where:
        raise SourceError(
            "the manifest does not say what the artifact was made from",
            where="manifest.model.source",
            hint="name it with --model",
        )
    trusted = recorded.get("trust_remote_code") is True
    return resolve(where, Path.cwd(), trusted, adapter=recorded.get("adapter"))


def reference_of(source: Source, task: str) -> Any:
    """The fp32 torch module."""
    from lepton_compile.export.reference import load_reference

    return load_reference(source, task)


def precision_of(manifest: dict[str, Any], target: str) -> str:
    """Precision of the engine for a target."""
    engines = {engine["target"]: engine["precision"] for engine in manifest["engines"]}
    return str(engines[target])
