"""Capture: replace what should stay one op by that op, before a model is traced.

``capturing(model, positions)`` patches a model on the meta device and restores it afterwards:
attention and masks (``attention.py``), states in place of a cache (``stateful.py``), experts
(``experts.py``), norms (``norm.py``, ``gated_norm.py``), rotary embeddings (``rotary.py``),
GPT-2's transposed linear layers (``conv1d.py``), rows that a mask picks (``picked.py``). Each but
attention settles what it stands for by running the real code on numbers, or by its form; what is
not recognised stays as the model wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from torch import nn

from lepton_compile.export import ops

from .attention import (
    NAME,
    OWN,
    TORCH,
    AttentionCapture,
    LeptonCache,
    LooksAheadError,
)
from .constant import ConstantCapture
from .conv1d import capture_conv1d
from .crossing import PairCache
from .experts import ExpertsError, capture_experts
from .gated_norm import capture_gated_norms
from .norm import capture_norms
from .order import ordered_sets
from .picked import captured_picks
from .rotary import RotaryCapture
from .stateful import capture_states
from .states import StateCapture

__all__ = [
    "NAME",
    "OWN",
    "TORCH",
    "Capture",
    "ExpertsError",
    "LeptonCache",
    "LooksAheadError",
    "PairCache",
    "capturing",
]


@dataclass
class Capture:
    """What was captured: masks seen, states cached, and rotary embeddings."""

    attention: AttentionCapture
    states: StateCapture
    rotary: RotaryCapture


@contextmanager
def capturing(model: nn.Module, positions: int, *, attention: str = NAME) -> Iterator[Capture]:
    """Patch ``model`` (on the meta device) for tracing.

    Args:
        model: a transformers model built by ``meta.build``.
        positions: rows of the rotary tables, the longest sequence that the engine will see.
        attention: where attention and masks are captured: ``NAME`` transformers' interface,
            ``TORCH`` torch's function, ``OWN`` nowhere, they stay as the model writes them.
    """
    with ExitStack() as stack:
        captured = AttentionCapture(positions)
        rotary = RotaryCapture(positions)
        stack.callback(ops.constants.clear)
        stack.enter_context(ConstantCapture())
        stack.enter_context(captured.patched(model, attention))
        stack.enter_context(capture_experts(model))
        states = stack.enter_context(capture_states(model))
        stack.enter_context(rotary.patched(model))
        stack.enter_context(capture_norms(model))
        stack.enter_context(capture_gated_norms(model))
        stack.enter_context(capture_conv1d(model))
        stack.enter_context(ordered_sets(model))
        stack.enter_context(captured_picks(model))
        yield Capture(captured, states, rotary)
