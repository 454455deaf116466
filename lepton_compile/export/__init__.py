"""Export: from a Hugging Face model to a neutral ONNX graph, by capture.

``export(source, task)`` is the stage; ``source`` finds the model, ``checkpoint`` and ``weights``
read and bind its tensors, ``capture`` and ``layers`` trace it, ``translate`` writes the graph in
the ``dialect``. Nothing here knows a target.
"""

from __future__ import annotations

from .export import ExportedModel, export
from .kept import CacheLayer, StateLayer
from .source import Source, resolve
from .tasks import Pooling

__all__ = ["CacheLayer", "ExportedModel", "Pooling", "Source", "StateLayer", "export", "resolve"]
