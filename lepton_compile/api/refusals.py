"""What a loader, a weight's reader or onnxruntime refuses, as an error of the compiler.

The first two import nothing of the package, so their errors are outside our tree: whoever catches
``LeptonError`` around a build would miss them, and they do not say which engine it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lepton_compile.errors import EngineError, LeptonError, PassError, SourceError, UnrunnableError
from lepton_compile.export import Source
from lepton_passes.tensors import WeightError

__all__ = ["BEGAN", "blaming", "blaming_named_model", "engine_failed", "weights_named"]

BEGAN = "LEPTON_DEBUG=1 shows where it began"


@contextmanager
def engine_failed(message: str, where: str, hint: str = BEGAN) -> Iterator[None]:
    """Turn what a loader raises inside into an EngineError with this message and hint."""
    from lepton_compile.runtime import LoaderError

    try:
        yield
    except LoaderError as error:
        raise EngineError(message, where=where, found=str(error), hint=hint) from error


@contextmanager
def weights_named() -> Iterator[None]:
    """Turn what is raised inside for a weight that cannot be stored, as it is read for a check or
    an engine, into a PassError."""
    try:
        yield
    except Exception as error:
        if (why := _of_a_weight(error)) is None:
            raise
        raise PassError(
            "a weight cannot be stored as the recipe asks",
            found=str(why),
            hint="look at it in the checkpoint; or leave it by quantize.rules (bits: none)",
        ) from error


@contextmanager
def blaming(source: Source) -> Iterator[None]:
    """Where onnxruntime does not read what was made of an ONNX file, nor the file itself, it is the
    file that is wrong: raises a SourceError that says so."""
    try:
        yield
    except EngineError as error:
        if source.kind != "onnx" or (why := _unread(source)) is None:
            raise
        raise SourceError(
            "onnxruntime does not read the ONNX file",
            where=str(source.path),
            found=why,
            hint="onnx.checker.check_model(..., full_check=True) may say more",
        ) from error


@contextmanager
def blaming_named_model(manifest: Mapping[str, Any], model: str | None) -> Iterator[None]:
    """Around what runs the engine and its source: a ``model`` that is named is taken as it is, and
    need not take what the engine takes. Raises SourceError where PyTorch fails on it."""
    try:
        yield
    except Exception as error:
        cause = error.__cause__ if isinstance(error, UnrunnableError) else error
        if model is None or (
            cause is error and isinstance(error, LeptonError | MemoryError | OSError)
        ):
            raise
        made_from = manifest["model"].get("architecture") or "another"
        raise SourceError(
            "the model named does not compute on what the engine takes",
            where="model",
            found=f"{model}: {type(cause).__name__}: {cause}",
            hint=f"name the {made_from} that the artifact was made from",
        ) from error


def _unread(source: Source) -> str | None:
    from lepton_compile.engines.readable import check_readable

    try:
        check_readable(source.path)
    except EngineError as error:
        return error.found
    return None


def _of_a_weight(error: BaseException | None) -> WeightError | None:
    """The error of a weight that it is or was caused by: onnx_ir reads small weights as it writes a
    graph, and raises an error of its own around theirs."""
    while error is not None and not isinstance(error, WeightError):
        error = None if isinstance(error, LeptonError) else error.__cause__
    return error
