"""The PyTorch model an artifact came from: what ``verify`` and ``bench`` compare with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lepton_compile.export import Source

__all__ = ["comparing", "precision_of", "reference_of", "source_of", "source_option"]

# What a model computes goes by these.
DECIDING = re.compile(r"\.(safetensors|gguf|py)$|(^|/)(adapter_)?config\.json$")

source_option = click.option(
    "--model", "spec", metavar="M", help="Where the source is now; default: as the manifest says."
)


def source_of(folder: Path, manifest: Mapping[str, Any], spec: str | None) -> Source:
    """The source that the artifact in ``folder`` was built from, or the one named instead.

    Raises:
        SourceError: it is not there any more, is another one by now, or no source is named.
    """
    from lepton_compile.errors import SourceError
    from lepton_compile.export import resolve

    recorded = manifest.get("model") or {}
    where, adapter = spec or recorded.get("source"), recorded.get("adapter")
    if not where:
        raise SourceError(
            "the manifest does not say what the artifact was made from",
            where="manifest.model.source",
            hint="name it with --model",
        )
    if spec is None:
        where = _placed(folder, where)
    trusted = recorded.get("trust_remote_code") is True
    source = resolve(where, Path.cwd(), trusted, adapter=adapter and _placed(folder, adapter))
    if spec is None:
        _check_same(source, manifest.get("lock") or {})
    return source


def _placed(folder: Path, recorded: str) -> str:
    """A path of the recipe's as seen from the folder that it was in, if it is there still; as it
    was written where it is not, or is no path."""
    from lepton_compile.arguments import placed
    from lepton_compile.artifact.manifest import REPORT_FILE
    from lepton_compile.export.json_file import read_json

    if recorded.startswith(("hf:", "package:")):
        return recorded
    try:
        base = read_json(folder / REPORT_FILE)["capture"]["base"]
        path = placed(recorded, Path(base), "model")
    except (OSError, ValueError, LookupError, TypeError):
        return recorded
    return str(path) if path.exists() else recorded


def _check_same(source: Source, lock: Mapping[str, Any]) -> None:
    """Refuse weights, configuration, code and adapter that are not those of the build.

    The hub's at the commit that was built from are: whole files need not be read.
    """
    from lepton_compile.errors import SourceError
    from lepton_compile.export.checkpoint.names import summarize

    was = lock.get("inputs") or {}
    if source.adapter is None and source.revision and source.revision == lock.get("revision"):
        return
    known = {name: digest for name, digest in was.items() if DECIDING.search(name)}
    now = source.digests() if known else {}
    if other := [name for name, digest in known.items() if now.get(name) != digest]:
        raise SourceError(
            "the model is not what the artifact was made from",
            where=str(source.path),
            found=f"another {', '.join(summarize(other))}",
            hint="name the model that it was made from with --model; any that is named is taken",
        )


@contextmanager
def comparing(manifest: Mapping[str, Any], spec: str | None) -> Iterator[None]:
    """Around what runs the engine and its source: one named with ``--model`` is taken as it is, and
    need not take what the engine takes. Raises SourceError where PyTorch fails on it."""
    from lepton_compile.errors import LeptonError, SourceError

    try:
        yield
    except Exception as error:
        if spec is None or isinstance(error, LeptonError | MemoryError | OSError):
            raise
        made_from = manifest["model"].get("architecture") or "another"
        raise SourceError(
            "the model named does not compute on what the engine takes",
            where="--model",
            found=f"{spec}: {type(error).__name__}: {error}",
            hint=f"name the {made_from} that the artifact was made from",
        ) from error


def reference_of(source: Source, task: str) -> Any:
    """The fp32 torch module."""
    from lepton_compile.export.reference import load_reference

    return load_reference(source, task)


def precision_of(manifest: dict[str, Any], target: str) -> str:
    """Precision of the engine for a target."""
    engines = {engine["target"]: engine["precision"] for engine in manifest["engines"]}
    return str(engines[target])
