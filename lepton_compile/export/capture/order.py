"""Sets that a model's own code walks through, in one order in every process.

``for layer_type in set(config.layer_types)`` makes the rotary tables of several families in the
order of hashes, which Python salts anew for each process: nodes of a graph would come in another
order, an artifact in other bytes. While the context is open, ``set`` in the model's modules sorts,
and so do the sets that it was made with (Gemma 4).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from lepton_compile.export.meta import modules_of

__all__ = ["ordered_sets"]


class _Sorted(set[Any]):
    """A set whose elements come sorted by what they look like."""

    def __iter__(self) -> Iterator[Any]:
        return iter(sorted(super().__iter__(), key=repr))


@contextmanager
def ordered_sets(model: nn.Module) -> Iterator[None]:
    """Let sets that the modules of ``model`` make, and those that it has, come sorted."""
    names = {type(module).__module__ for _, module in modules_of(model)}
    # torch's own code is run by every model and walks through no sets while it is traced.
    spaces = [vars(sys.modules[n]) for n in sorted(names) if not n.startswith("torch.")]
    spaces = [space for space in spaces if "set" not in space]
    made = [
        (vars(module), name, value)
        for module in model.modules()
        for name, value in vars(module).items()
        if type(value) is set and not name.startswith("_")
    ]
    for space in spaces:
        space["set"] = _Sorted
    for attributes, name, value in made:
        attributes[name] = _Sorted(value)
    try:
        yield
    finally:
        for space in spaces:
            del space["set"]
        for attributes, name, value in made:
            attributes[name] = value
