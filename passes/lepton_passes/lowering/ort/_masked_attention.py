"""Attention of our dialect that has no cache, and goes by a mask that is made for all layers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.lowering.ort.sequence_lengths import MaskValues

__all__ = ["MaskedAttentionPass"]

_MASK = 3


class MaskedAttentionPass(LeptonPass):
    """Lower such attention; what kernels read from the mask is computed once."""

    changes_numbers = True
    counts_as = "attention"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self._masks = MaskValues(model)
        return super().call(model)

    @abstractmethod
    def lacks(self, body: Body, node: ir.Node) -> str | None:
        """Why there is no kernel for it, whatever its mask is."""

    @abstractmethod
    def lower(self, body: Body, node: ir.Node, masks: list[ir.Value]) -> None:
        """Put a kernel in its place; ``masks`` are those of each call of the layer."""

    def lower_masked(self, body: Body, nodes: Iterable[ir.Node]) -> None:
        """Lower each, or refuse it."""
        for node in nodes:
            masks, reason = body.arguments(node.inputs[_MASK]), self.lacks(body, node)
            if masks is None:
                self.refuse(body, node, "the mask is made inside the layer")
            elif reason is not None:
                self.refuse(body, node, reason)
            else:
                self.lower(body, node, masks)
