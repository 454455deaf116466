"""Kernels of onnxruntime's CUDA provider, for the ops of our graphs.

Source: onnxruntime-gpu 1.31.1, asked op by op on an H100, which of them a session with
``session.disable_cpu_ep_fallback`` takes at opsets 23 and 24 in each type; older opsets from
docs/OperatorKernels.md of microsoft/onnxruntime at commit 001d12d2623f. What a kernel refuses when
it runs is from contrib_ops/cuda/bert/group_query_attention.cc there. Only ops that our exports and
passes make are listed; one that is not listed counts as having no kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from lepton_passes.body import MICROSOFT
from lepton_passes.lowering.ort._registered import serves

__all__ = ["CONTRIB", "STANDARD", "Kernel", "computes_in", "has_form", "kernel_for"]

F, H, B = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16


@dataclass(frozen=True)
class Kernel:
    """One row of the table.

    Attributes:
        types: of numbers that it computes with.
        first: the opset that it was registered for.
        last: the newest of its range; None where the range is open.
    """

    types: frozenset[ir.DataType]
    first: int
    last: int | None = None

    def serves(self, since: int) -> bool:
        """Whether it takes a node whose op came with opset ``since``."""
        return serves(since, self.first, self.last)


_ALL, _NO_BF16, _HALVES = frozenset([F, H, B]), frozenset([F, H]), frozenset([H, B])

# Op -> the opset of each kernel that a graph of opset 18 to 24 may meet.
# fmt: off
_EVERY_TYPE: Mapping[str, tuple[int, ...]] = {
    "Abs": (13,), "Add": (14,), "Attention": (23, 24), "AveragePool": (19, 22), "Concat": (13,),
    "Cos": (7, 22), "Div": (14,), "Erf": (13,), "Exp": (13,), "Expand": (13,), "Gather": (13,),
    "GatherElements": (13,), "GatherND": (13,), "Gelu": (20,), "Gemm": (13,),
    "LayerNormalization": (17,), "LpNormalization": (22,), "MatMul": (13,), "Max": (13,),
    "Min": (13,), "Mish": (22,), "Mod": (13,), "Mul": (14,), "Neg": (13,), "Pow": (15,),
    "RMSNormalization": (23,), "ReduceL1": (18,), "ReduceMean": (18,), "ReduceSum": (13,),
    "ReduceSumSquare": (18,), "Relu": (14,), "RotaryEmbedding": (23,), "ScatterElements": (18,),
    "ScatterND": (18,), "Sigmoid": (13,), "Sign": (13,), "SimplifiedLayerNormalization": (1,),
    "Sin": (7, 22), "Slice": (13,), "Softmax": (13,), "Softplus": (1, 22), "Softsign": (1, 22),
    "Split": (18,), "Sqrt": (13,), "Sub": (14,), "Tanh": (13,), "TensorScatter": (24,),
    "Tile": (13,), "Trilu": (14,), "Where": (16,),
}
_WITHOUT_BF16: Mapping[str, tuple[int, ...]] = {
    "ArgMax": (13,), "BatchNormalization": (15,), "Ceil": (13,), "Clip": (13,),
    "ConvTranspose": (11, 22), "CumSum": (14,), "Einsum": (12,), "Elu": (6,), "Equal": (13, 19),
    "Floor": (13,), "GlobalAveragePool": (1, 22), "Greater": (13,), "GreaterOrEqual": (16,),
    "InstanceNormalization": (6,), "LeakyRelu": (16,), "Less": (13,), "LessOrEqual": (16,),
    "Log": (13,), "LogSoftmax": (13,), "MaxPool": (12,), "PRelu": (16,),
    "Pad": (18, 19, 21, 23, 24), "Reciprocal": (13,), "ReduceL2": (18,), "ReduceLogSumExp": (18,),
    "ReduceMax": (18, 20), "ReduceMin": (18, 20), "ReduceProd": (18,), "Resize": (19,),
    "Round": (11, 22), "TopK": (11, 24),
}
# These were registered range by range, up to those of opsets 23 and 24.
_TO_24 = frozenset({"Cast", "Flatten", "Reshape", "Shape", "Squeeze", "Transpose", "Unsqueeze"})
# fmt: on

STANDARD: Mapping[str, tuple[Kernel, ...]] = {
    **{op: tuple(Kernel(_ALL, first) for first in at) for op, at in _EVERY_TYPE.items()},
    **{op: tuple(Kernel(_NO_BF16, first) for first in at) for op, at in _WITHOUT_BF16.items()},
    **dict.fromkeys(_TO_24, (Kernel(_ALL, 13, 20), Kernel(_ALL, 21, 22), Kernel(_ALL, 23, 24))),
    "ConstantOfShape": (Kernel(_ALL, 9),),
    "Conv": (Kernel(_NO_BF16, 11, 21), Kernel(_ALL, 22)),
    "HardSigmoid": (Kernel(_NO_BF16, 6, 21), Kernel(_ALL, 22)),
    "HardSwish": (Kernel(_NO_BF16, 14, 21), Kernel(_ALL, 22)),
    "Identity": (Kernel(_ALL, 14, 18), Kernel(_ALL, 19)),
    "IsInf": (Kernel(_ALL, 20),),
    "IsNaN": (Kernel(_ALL, 20),),
    "Size": (Kernel(_ALL, 13),),
    "DequantizeLinear": (Kernel(_NO_BF16, 19, 20), Kernel(_NO_BF16, 21)),
    "QuantizeLinear": (Kernel(_NO_BF16, 19, 20), Kernel(_NO_BF16, 21)),
}
"""Ops of ONNX by name."""

CONTRIB: Mapping[str, frozenset[ir.DataType]] = {
    **dict.fromkeys(("BiasGelu", "FastGelu", "FusedMatMul", "Gelu", "QuickGelu"), _ALL),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), _ALL),
    **dict.fromkeys(("GatherBlockQuantized", "MatMulNBits", "RotaryEmbedding"), _ALL),
    **dict.fromkeys(("CausalConvWithState", "LinearAttention"), _ALL),
    **dict.fromkeys(("GroupQueryAttention", "MoE", "QMoE"), _HALVES),
    "MultiHeadAttention": _ALL,
}
"""Ops of com.microsoft by name, with the types that they compute in."""


def computes_in(node: ir.Node) -> ir.DataType | None:
    """The type of the numbers that the node deals in; None where it has none."""
    values = [*node.inputs, *node.outputs]
    found = [v.dtype for v in values if v is not None and v.dtype in _ALL]
    halves = [dtype for dtype in found if dtype in _HALVES]
    if node.op_type == "Cast" or not halves:
        return found[0] if found else None
    return halves[0]


def kernel_for(node: ir.Node, opset: int, dtype: ir.DataType) -> str | None:
    """Why no kernel takes a node that computes in ``dtype``; None where one does."""
    if node.domain == MICROSOFT:
        types = CONTRIB.get(node.op_type)
        if types is None:
            return "the CUDA provider has no such kernel"
        return None if dtype in types else _untyped(dtype, types)
    if node.op_type not in STANDARD:
        return "the CUDA provider has no such kernel"
    fitting = _fitting(node, opset)
    if not fitting:
        since = _since(node.op_type, opset)
        return f"the CUDA provider has no kernel for the form of opset {since}"
    types = frozenset().union(*(kernel.types for kernel in fitting))
    return None if dtype in types else _untyped(dtype, types)


def has_form(node: ir.Node, opset: int) -> bool:
    """Whether an op of ONNX has a kernel, in one type or another, at an opset."""
    return bool(_fitting(node, opset))


def _fitting(node: ir.Node, opset: int) -> list[Kernel]:
    since = _since(node.op_type, opset)
    return [kernel for kernel in STANDARD.get(node.op_type, ()) if kernel.serves(since)]


def _since(op_type: str, opset: int) -> int:
    """The opset that the op of a graph came with; 1 for onnxruntime's own in this domain."""
    if not onnx.defs.has(op_type):
        return 1
    return int(onnx.defs.get_schema(op_type, max_inclusive_version=opset).since_version)


def _untyped(dtype: ir.DataType, types: frozenset[ir.DataType]) -> str:
    known = ", ".join(sorted(t.name.lower() for t in types))
    return f"the CUDA provider has no kernel for {dtype.name.lower()}, only for {known}"
