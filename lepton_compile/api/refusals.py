"""What a loader or a weight's reader refuses, as an error of the compiler.

Neither imports anything of the package, so their errors are outside our tree: whoever catches
``LeptonError`` around a build would miss them, and they do not say which engine it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lepton_compile.errors import EngineError, LeptonError, PassError
from lepton_passes.tensors import WeightError

__all__ = ["BEGAN", "engine_failed", "weights_named"]

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


def _of_a_weight(error: BaseException | None) -> WeightError | None:
    """The error of a weight that it is or was caused by: onnx_ir reads small weights as it writes a
    graph, and raises an error of its own around theirs."""
    while error is not None and not isinstance(error, WeightError):
        error = None if isinstance(error, LeptonError) else error.__cause__
    return error
