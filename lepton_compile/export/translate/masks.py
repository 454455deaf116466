"""Masks of ours are read by the attention that is captured, and by nothing else.

What stands for a mask of transformers' (``capture/attention.py``) says which keys are padding, not
what to add to scores. Code of the model's own that adds it (the encoder of BigBird-Pegasus, beside
a decoder whose attention is captured) would compute something else.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx

from lepton_compile.export.program import op_name
from lepton_compile.export.refusal import OwnCodeError

from .idle import idle

__all__ = ["OWN_ATTENTION", "check_masks"]

OWN_ATTENTION = "the model takes a mask from transformers, and attends by itself"

_MAKERS = ("lepton.mask", "lepton.marks", "lepton.wide_mask")
# A layer is given its masks as such, and is checked by itself.
_READERS = ("lepton.attention", "lepton.shared_attention", "lepton.layers", "aten.sym_size")


def check_masks(graph: fx.Graph, given: Iterable[fx.Node] = ()) -> None:
    """See that nothing but attention reads the masks of a graph.

    Args:
        given: those that are inputs.

    Raises:
        OwnCodeError: something does.
    """
    made = [node for node in graph.nodes if op_name(node) in _MAKERS]
    unread = idle(graph)
    for mask in (*given, *made):
        for reader in mask.users:
            if reader not in unread and op_name(reader) not in _READERS:
                raise OwnCodeError(OWN_ATTENTION, found=f"{reader.target}")
