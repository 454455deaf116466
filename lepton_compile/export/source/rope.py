"""What config.json says of rotary embeddings, looked at before transformers computes with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lepton_compile.errors import SourceError
from lepton_compile.export.source.objects import COMPARE

__all__ = ["check_rope"]

_PLACES = ("rope_parameters", "rope_scaling")
# Transformers only warns of these, and then divides by them.
_DIVISORS = (
    *("factor", "original_max_position_embeddings", "rope_theta"),
    *("attention_factor", "low_freq_factor", "high_freq_factor"),
)
_LISTS = ("short_factor", "long_factor")
LEAST, MOST = 2.0**-126, 2.0**128  # of what fp32 has, in which the tables are computed
LONGEST = 1 << 16  # of a list that has a number for each pair of a head's


def check_rope(config: Mapping[str, Any], file: Path) -> None:
    """Refuse numbers that nothing can be turned by.

    Raises:
        SourceError: one that has to be above zero is not, or not in fp32, or a list is longer than
            any head, or than the other one.
    """
    for place, found in _parameters(config):
        for key in (key for key in _DIVISORS if found.get(key) is not None):
            if not _positive(found[key]):
                raise _wrong(file, f"{place}.{key}", f"{found[key]!r:.60}", "a number above 0")
        for key in (key for key in _LISTS if found.get(key) is not None):
            many = found[key]
            if not isinstance(many, list) or not 0 < len(many) <= LONGEST:
                said = f"{len(many):,} entries" if isinstance(many, list) else f"{many!r:.60}"
                raise _wrong(file, f"{place}.{key}", said, f"a list of 1 to {LONGEST:,} numbers")
            if (bad := next((each for each in many if not _positive(each)), many)) is not many:
                raise _wrong(file, f"{place}.{key}", f"{bad!r:.60}", "numbers above 0")
        lengths = [len(found[key]) for key in _LISTS if found.get(key) is not None]
        if len({*lengths}) > 1:
            said = "{} numbers, of {} in short_factor".format(*reversed(lengths))
            raise _wrong(file, f"{place}.long_factor", said, "as many")


def _parameters(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each set of them by its dotted place: of the model, of its parts, of kinds of layers."""
    waiting: list[tuple[str, Mapping[str, Any], bool]] = [("", config, False)]
    while waiting:
        place, found, rope = waiting.pop()
        if rope:
            yield place, found
        for key, value in found.items():
            if isinstance(value, dict):
                waiting.append((f"{place}.{key}" if place else key, value, rope or key in _PLACES))


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and LEAST <= value < MOST


def _wrong(file: Path, key: str, found: str, available: str) -> SourceError:
    return SourceError(
        f"{key} is nothing that a rotary embedding can be computed by.",
        where=str(file),
        found=found,
        available=[available],
        hint=COMPARE,
    )
