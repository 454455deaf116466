"""The PyTorch model an artifact came from: what ``verify`` and ``bench`` compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from lepton_compile.export import Source

__all__ = ["comparing", "reference_of", "room_of", "source_options"]

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--model",
        "spec",
        metavar="M",
        help="Where the source is now; default: as the manifest says.",
    ),
    click.option(
        "--trust-remote-code", "trusted", is_flag=True, help="Run Python files of the model."
    ),
)


def source_options(command: F) -> F:
    """Adds the options that say where the model is by now, and whether its code may run."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


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


def room_of(manifest: Mapping[str, Any], source: Source) -> tuple[bool, str]:
    """Whether the fp32 model has room a layer at a time alone, and why it has none at all; empty
    where it has."""
    from lepton_compile.api.comparing import room_to_verify
    from lepton_compile.api.memory import MemoryCeiling

    parameters = (manifest.get("model") or {}).get("parameters")
    if source.kind == "onnx" or not parameters:  # whoever loads it tells; nobody knows
        return False, ""
    engine = sum(entry["size"] for entry in manifest["files"].values())
    ceiling, task = MemoryCeiling(None), manifest["task"]
    held, lacks = room_to_verify(ceiling, source, task, parameters, engine)
    return held < parameters, lacks


def reference_of(manifest: Mapping[str, Any], source: Source) -> Any:
    """The fp32 torch module. Raises SourceError where it has no room as a whole."""
    from lepton_compile.errors import SourceError
    from lepton_compile.export.reference import load_reference

    streamed, lacks = room_of(manifest, source)
    if streamed or lacks:
        raise SourceError(lacks or "the fp32 model has no room as a whole")
    return load_reference(source, manifest["task"])
