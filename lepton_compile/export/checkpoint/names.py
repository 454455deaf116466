"""Names of parameters, as messages list them."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["summarize"]


def summarize(names: Iterable[str]) -> list[str]:
    """Names with runs of layer numbers folded: ``layers.{0..3}.norm.weight``. None is left out."""
    groups: dict[str, list[int]] = {}
    for name in names:
        match = re.search(r"(?<=\.)\d+(?=\.)", name)
        key = name if match is None else f"{name[: match.start()]}\0{name[match.end() :]}"
        groups.setdefault(key, []).append(-1 if match is None else int(match[0]))
    return [_folded(key, sorted(numbers)) for key, numbers in groups.items()]


def _folded(key: str, numbers: list[int]) -> str:
    if "\0" not in key:
        return key
    if len(numbers) == 1:
        return key.replace("\0", str(numbers[0]))
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return key.replace("\0", f"{{{numbers[0]}..{numbers[-1]}}}")
    return key.replace("\0", "{" + ",".join(map(str, numbers)) + "}")
