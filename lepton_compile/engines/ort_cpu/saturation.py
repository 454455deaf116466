"""Whether kernels of onnxruntime multiply bytes in a model, sums of which 16 bits may not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_compile.engines.ort_cpu.nodes import all_nodes

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["multiplies_bytes"]

_EXACT = ("GatherBlockQuantized", "DequantizeLinear")


def multiplies_bytes(model: ir.Model) -> bool:
    """Whether any of its ops may: those of quantized numbers that do more than to read them.

    Also ``QuantizeLinear``: onnxruntime makes such ops of what stands between it and its opposite.
    """
    from lepton_plugins.spec import CPU_DOMAIN

    others = (node for node in all_nodes(model) if node.domain != CPU_DOMAIN)
    return any(_multiplies(node.op_type) for node in others)


def _multiplies(op: str) -> bool:
    named = "Quant" in op or "Integer" in op or op.startswith("Q") or op == "MatMulNBits"
    return named and op not in _EXACT
