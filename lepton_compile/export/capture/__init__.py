"""Capture: replace what should stay one op by that op, before a model is traced.

``capturing(model, positions)`` patches a model on the meta device and restores it afterwards:
attention and masks (``attention.py``), norms (``norm.py``), rotary embeddings (``rotary.py``) and
GPT-2's transposed linear layers (``conv1d.py``). Each piece settles what it stands for by running
the real code on numbers; what it does not recognise stays as the model wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from .attention import NAME, AttentionCapture, LeptonCache
from .conv1d import capture_conv1d
from .norm import capture_norms
from .rotary import RotaryCapture

__all__ = ["Capture", "LeptonCache", "capturing"]


@dataclass
class Capture:
    """What was captured: the rotary tables (cos, sin; fp32 (positions, width)) and masks seen."""

    attention: AttentionCapture
    rotary: RotaryCapture
    norms: int = 0
    tables: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)


@contextmanager
def capturing(model: nn.Module, positions: int, *, attention: bool = True) -> Iterator[Capture]:
    """Patch ``model`` (on the meta device) for tracing.

    Args:
        model: a transformers model built by ``meta.build``.
        positions: rows of the rotary tables, the longest sequence that the engine will see.
        attention: False leaves attention and masks as the model's own eager code writes them.
    """
    with ExitStack() as stack:
        captured = AttentionCapture()
        rotary = RotaryCapture(positions)
        capture = Capture(captured, rotary, tables=rotary.tables)
        stack.enter_context(captured.patched(model, NAME if attention else "eager"))
        stack.enter_context(rotary.patched(model))
        capture.norms = stack.enter_context(capture_norms(model))
        stack.enter_context(capture_conv1d(model))
        yield capture
