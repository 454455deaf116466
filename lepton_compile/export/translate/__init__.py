"""From a traced program to ONNX nodes, one handler for each aten op.

The program is taken before decomposition, so ``linear``, ``layer_norm`` and ``gelu`` are still
whole and symbolic sizes still say where they come from. Handlers live in one file for each family
and are gathered here in one table; an op without a handler raises ``UnknownOpError``.
"""

from __future__ import annotations

from .activations import HANDLERS as ACTIVATIONS
from .core import State, Translator, UnknownOpError
from .creation import HANDLERS as CREATION
from .elementwise import HANDLERS as ELEMENTWISE
from .experts import HANDLERS as EXPERTS
from .fourier import HANDLERS as FOURIER
from .images import HANDLERS as IMAGES
from .indexing import HANDLERS as INDEXING
from .layout import HANDLERS as LAYOUT
from .lepton import HANDLERS as LEPTON
from .linear import HANDLERS as LINEAR
from .reduction import HANDLERS as REDUCTION
from .states import HANDLERS as STATES

__all__ = ["HANDLERS", "State", "Translator", "UnknownOpError"]

HANDLERS = {
    **LINEAR,
    **ELEMENTWISE,
    **ACTIVATIONS,
    **LAYOUT,
    **INDEXING,
    **REDUCTION,
    **CREATION,
    **LEPTON,
    **EXPERTS,
    **FOURIER,
    **IMAGES,
    **STATES,
}
