"""What a model opened by this package can be asked for: what its artifact's own file has.

That file has the calls of one task, and refuses those of others by name. Here all of them are at
hand, and a call of another task would fail somewhere within, or give numbers that mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NoReturn

from lepton_compile.runtime.parts import parts_for

__all__ = ["without_others"]


class _Left:
    """A name that is not there, so that ``__getattr__`` is asked for it."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, model: object, owner: type) -> NoReturn:
        raise AttributeError(f"'{owner.__name__}' object has no attribute '{self.name}'")


def without_others(model: Any, manifest: Mapping[str, Any]) -> Any:
    """Class ``model`` with the public names that its artifact's own file has, each as there."""
    return _without(model, parts_for(manifest))


@cache
def _without(model: Any, parts: tuple[str, ...]) -> Any:
    own: dict[str, Any] = {}
    left: set[str] = set()
    for base in reversed(model.__mro__[1:-1]):
        public = {name: what for name, what in vars(base).items() if not name.startswith("_")}
        if base.__module__.rpartition(".")[2] in parts:
            own |= public
        else:
            left |= public.keys()
    # Calls on texts and on pictures have the same name: one that is left out hides the other.
    names = {name: own[name] if name in own else _Left() for name in left}
    told = {"__doc__": model.__doc__, "__module__": model.__module__}
    return type(model.__name__, (model,), told | names)
