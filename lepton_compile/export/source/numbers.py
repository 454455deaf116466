"""Numbers of a configuration that no model has, looked at before transformers takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lepton_compile.errors import SourceError
from lepton_compile.export.source.objects import COMPARE

__all__ = ["check_numbers"]

# What is 0 or below counts as missing to some of the library's code, and is divided by in other.
LENGTHS = ("max_position_embeddings", "sliding_window")
# Keys of sizes, by what they end in, but for those of how far attention reaches: no limit is large.
SIZES = (
    *("_size", "_dim", "_dims", "_heads", "_layers", "d_model", "d_ff", "d_kv", "d_inner"),
    *("n_embd", "n_head", "n_inner", "n_layer", "num_experts"),
)
REACHES = ("window", "chunk", "block")
LARGEST = 1 << 24
"""Of a size; a vocabulary of a million words is a large one."""


def check_numbers(config: Mapping[str, Any], file: Path) -> None:
    """Refuse lengths below one, sizes that no memory holds, and what is no number at all.

    Infinity is one: state space models have steps without a limit.

    Raises:
        SourceError: with the key.
    """
    for place, value in _numbers(config):
        key = place.rpartition(".")[2]
        if value != value:
            raise _wrong(file, place, value, "a number")
        if key in LENGTHS and value < 1:
            raise _wrong(file, place, value, "a whole number from 1 on")
        if value > LARGEST and key.endswith(SIZES) and not any(each in key for each in REACHES):
            raise _wrong(file, place, value, f"up to {LARGEST:,}")


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, int | float]]:
    """Each number by its dotted place, but for windows that are switched off."""
    waiting: list[tuple[str, Any]] = [("", config)]
    while waiting:
        place, found = waiting.pop()
        if isinstance(found, dict):
            off = found.get("use_sliding_window") is False
            parts = ((k, v) for k, v in found.items() if not (off and k == "sliding_window"))
            waiting += [(f"{place}.{key}" if place else key, value) for key, value in parts]
        elif isinstance(found, list):
            waiting += [(f"{place}.{n}", value) for n, value in enumerate(found)]
        elif isinstance(found, int | float) and not isinstance(found, bool):
            yield place, found


def _wrong(file: Path, key: str, found: float, available: str) -> SourceError:
    return SourceError(
        f"{key} is nothing that a model can have.",
        where=str(file),
        found=str(found),
        available=[available],
        hint=COMPARE,
    )
