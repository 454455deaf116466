"""Attributes that are something else for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["swapped"]

_INHERITED = object()


@contextmanager
def swapped(*places: tuple[Any, str, Any]) -> Iterator[None]:
    """Give attributes (object, name, value) their values while the context is open.

    What an object had of its class alone, such as ``forward``, it has from there again afterwards.
    """
    before = [(home, name, vars(home).get(name, _INHERITED)) for home, name, _ in places]
    try:
        for place in places:
            setattr(*place)
        yield
    finally:
        for home, name, value in before:
            if value is _INHERITED:
                delattr(home, name)
            else:
                setattr(home, name, value)
