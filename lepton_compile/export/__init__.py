"""Export: from a Hugging Face model to a neutral ONNX graph, by capture.

``export.export(source, task)`` is the stage; ``source`` finds the model, ``checkpoint`` and
``weights`` read and bind its tensors, ``capture`` and ``layers`` trace it, ``translate`` writes the
graph in the ``dialect``. Nothing here knows a target.

Each name is loaded on first use: a model is found without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .export import ExportedModel
    from .kept import CacheLayer, StateLayer
    from .source import Source, resolve
    from .tasks import Pooling

__all__ = ["CacheLayer", "ExportedModel", "Pooling", "Source", "StateLayer", "resolve"]

_HOMES = {
    "CacheLayer": "kept",
    "ExportedModel": "export",
    "Pooling": "tasks",
    "Source": "source",
    "StateLayer": "kept",
    "resolve": "source",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
