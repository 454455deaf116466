"""What a loader refuses, as an error of the compiler.

The loader imports nothing of the package, so its errors are outside our tree: who catches
``LeptonError`` around a build would miss them, and they do not say which engine it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lepton_compile.errors import EngineError

__all__ = ["engine_failed"]


@contextmanager
def engine_failed(message: str, where: str) -> Iterator[None]:
    """Turn what a loader raises inside into an EngineError with this message."""
    from lepton_compile.runtime import LoaderError

    try:
        yield
    except LoaderError as error:
        raise EngineError(
            message, where=where, found=str(error), hint="LEPTON_DEBUG=1 shows where it began"
        ) from error
