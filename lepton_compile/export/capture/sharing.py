"""Layers that read the keys and values of an earlier layer (Gemma 4 E2B, Gemma 3n).

transformers hands them on in a dictionary, ``KVSharingDict``, which is an argument of each layer:
some put theirs in, later ones take them out. With our cache what is handed on are the new keys and
values alone; they stand for all that the cache of that layer holds, and attention that is called
with them again reads it (``attention.py``).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from torch import nn
from transformers import cache_utils

from lepton_compile.export.swapped import swapped

__all__ = ["is_shared_dict", "shared_dict", "uncut"]

# In releases before 5.20 or so there is no such class: layers that share are traced whole.
_KIND: type | None = getattr(cache_utils, "KVSharingDict", None)


def is_shared_dict(leaf: object) -> bool:
    """Whether an argument of a layer is that dictionary."""
    return _KIND is not None and isinstance(leaf, _KIND)


def shared_dict(entries: dict[str, Any]) -> Any:
    """Such a dictionary."""
    assert _KIND is not None
    return _KIND(entries)


def uncut(model: nn.Module) -> AbstractContextManager[None]:
    """Have layers that share compute every position while the context is open.

    transformers cuts what they read to the positions whose logits are asked for, masks included,
    which ours are no longer then. A pass does that to the graph (``lower-last-layer``).
    """
    name = "_maybe_slice_kv_shared_inputs"
    return swapped(*((m, name, _as_given) for m in model.modules() if hasattr(m, name)))


def _as_given(hidden: Any, by_layer: Any, angles: Any, masks: Any, *_: Any, **__: Any) -> Any:
    return hidden, by_layer, angles, masks
