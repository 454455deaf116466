"""What a decoder's cache is, and how much memory a token takes in it, in a few words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from lepton_compile.cli.output import bytes_text

__all__ = ["cache_text"]


def cache_text(manifest: Mapping[str, Any]) -> str:
    """Of the keys and values of all layers, as each of the engines keeps them."""
    cache = manifest["cache"]
    layers, states = cache["layers"], len(cache.get("states", ()))
    held = f"{len(layers)} layers" + (f" and {states} states" if states else "")
    kind = "in place" if cache["shared"] else "growing"
    numbers = sum(2 * layer["heads"] * layer["head_dim"] for layer in layers)
    own = [{"dtype": cache.get("dtype"), **(e.get("cache") or {})} for e in manifest["engines"]]
    kept = {(str(each["dtype"]), each.get("group") or 0) for each in own}
    sizes = [
        f"{bytes_text(numbers * size + _scales(numbers, group))} ({dtype})"
        for dtype, group in sorted(kept)
        if (size := _bytes(dtype))
    ]
    a_token = f", {' or '.join(sizes)} a token" if numbers and sizes else ""
    return f"{held}, {cache['max_length']} tokens, {kind}{a_token}"


def _scales(numbers: int, group: int) -> int:
    """Bytes of the scales in fp16 that ``group`` numbers share; 0 where they have none."""
    return 2 * numbers // group if group > 0 else 0


def _bytes(dtype: str) -> int:
    """Of a number of a type by numpy's names, and those of ml_dtypes; 0 of what is none."""
    try:
        return np.dtype(getattr(ml_dtypes, dtype, dtype)).itemsize
    except TypeError:
        return 0
