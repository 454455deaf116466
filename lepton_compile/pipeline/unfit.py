"""Weights whose values do not fit what they are to be stored in, seen as they are written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lepton_compile.errors import PassError
from lepton_passes.tensors import WeightError

__all__ = ["named"]


@contextmanager
def named(weight: str | None) -> Iterator[None]:
    """What is written inside is ``weight``: one that does not fit is a PassError with its name."""
    try:
        yield
    except WeightError as error:
        raise PassError(
            "a weight cannot be stored as the recipe asks",
            where=weight,
            found=str(error),
            hint="look at it in the checkpoint; or leave it by quantize.rules (bits: none)",
        ) from error
