"""Sets that a model's own code walks through, in one order in every process.

``for layer_type in set(config.layer_types)`` makes the rotary tables of several families in the
order of hashes, which Python salts anew for each process: nodes of a graph would come in another
order, an artifact in other bytes. While the context is open, ``set`` in the model's modules sorts,
and so do the sets that it was made with (Gemma 4).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from lepton_compile.export.meta import code_of
from lepton_compile.export.swapped import swapped

__all__ = ["ordered_sets"]


class _Sorted(set[Any]):
    """A set whose elements come sorted by what they look like."""

    def __iter__(self) -> Iterator[Any]:
        return iter(sorted(super().__iter__(), key=repr))


def ordered_sets(model: nn.Module) -> AbstractContextManager[None]:
    """Let sets that the modules of ``model`` make, and those that it has, come sorted."""
    # torch's own code is run by every model and walks through no sets while it is traced.
    homes = [home for home in code_of(model) if not home.__name__.startswith("torch.")]
    made = [
        (module, name, _Sorted(value))
        for module in model.modules()
        for name, value in vars(module).items()
        if type(value) is set and not name.startswith("_")
    ]
    return swapped(*((home, "set", _Sorted) for home in homes if "set" not in vars(home)), *made)
