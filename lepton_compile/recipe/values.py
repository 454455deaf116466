"""The base of a recipe's sections, and the small notations: ``1..64``, ``+6%``, ``4GB``.

Each function takes what YAML gave and returns the plain value, or raises ``ValueError`` with a
sentence that the recipe's error shows.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

__all__ = [
    "Bytes",
    "Closed",
    "Fraction",
    "Location",
    "Range",
    "advised",
    "bytes_of",
    "fraction_of",
    "plain_of",
    "range_of",
    "text_of",
]

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
BINARY = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
EXTENT_LIMIT = 1 << 24
SHARE = "write a share as 6% or 0.06"
DROPPED = "null is no demand at all"
MEMORY_LIMIT = 1 << 60
"""More bytes than any machine has."""


class Closed(BaseModel):
    """A section of a recipe: a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def advised(message: str, hint: str) -> PydanticCustomError:
    """A ``ValueError`` that also says what to do next."""
    return PydanticCustomError("advised", "{message}", {"message": message, "hint": hint})


def range_of(value: Any) -> tuple[int, int]:
    """``1..64``, ``[1, 64]`` or one number, as an inclusive range."""
    low, high = _ends(value)
    if max(low, high) > EXTENT_LIMIT:
        raise ValueError(f"a range ends at {EXTENT_LIMIT} at the most")
    if not 1 <= low <= high:
        raise ValueError(f"a range runs from 1 upwards, as 1..64; this one is {low}..{high}")
    return low, high


def _ends(value: Any) -> tuple[int, int]:
    if isinstance(value, int) and not isinstance(value, bool):
        return value, value
    if isinstance(value, list | tuple) and len(value) == 2:
        low, high = value
        if type(low) is int and type(high) is int:
            return low, high
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,999})\s*(?:\.\.\s*(\d{1,999})\s*)?", value)
        if match is not None:
            return int(match[1]), int(match[2] or match[1])
    raise ValueError("write a range as 1..64, [1, 64] or one number")


def fraction_of(value: Any) -> float:
    """``0.06``, ``6%`` or ``+6%``, as 0.06; ``6e-2``, too, which is a word to YAML 1.1.

    What is more than the whole is most often a percentage without its sign.
    """
    given = _share_in(value) if isinstance(value, str) else value
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise ValueError(SHARE)
    if not 0 <= given <= sys.float_info.max:
        raise ValueError("a share is a number that is not negative")
    if given > 1 and "%" not in str(value):
        hint = f"{given:g} % is {given:g}% or {given / 100:g}" if given <= 100 else DROPPED
        raise advised("a share above 1, which is 100 %, is written with its sign", hint)
    return float(given)


def _share_in(text: str) -> float:
    match = re.fullmatch(r"\s*\+?(\d+(?:\.\d+)?)(?:\s*%|([eE][-+]?\d+))\s*", text)
    if match is None:
        raise ValueError(SHARE)
    return float(match[1] + match[2]) if match[2] else float(match[1]) / 100


def bytes_of(value: Any) -> int:
    """``3GB``, ``500MB``, ``2GiB`` or a number of bytes."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?\s*", value)
        amount = float(match[1]) * (UNITS | BINARY)[match[2] or ""] if match is not None else 0
        value = int(amount) if amount <= MEMORY_LIMIT else None
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MEMORY_LIMIT:
        return value
    raise ValueError("write an amount of memory as 4GB, 500MB or 2GiB")


def text_of(value: Any) -> Any:
    """A ``pathlib.Path``, which Python callers have, as the text it stands for."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def plain_of(value: Any) -> Any:
    """Numbers of numpy, which sweeps in Python have, as Python's own, however deep they lie."""
    if isinstance(value, Mapping):
        return {key: plain_of(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(plain_of, value))
    of_numpy = type(value).__module__ == "numpy" and getattr(value, "shape", None) == ()
    return value.item() if of_numpy else value


def _location_of(value: Any) -> Any:
    """A place as text; no system has one with a null character in its name."""
    text = text_of(value)
    if isinstance(text, str) and "\0" in text:
        raise ValueError("a place has no null character in its name")
    return text


Location = Annotated[str, BeforeValidator(_location_of)]
Range = Annotated[tuple[int, int], BeforeValidator(range_of)]
Fraction = Annotated[float, BeforeValidator(fraction_of)]
Bytes = Annotated[int, BeforeValidator(bytes_of)]
