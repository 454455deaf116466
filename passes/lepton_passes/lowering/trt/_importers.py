"""What TensorRT's ONNX importer knows by name, as TensorRT-RTX 1.7 answers for every ONNX op."""

from __future__ import annotations

__all__ = ["IMPORTED", "NEEDS_PLUGIN", "OF_DIALECT", "OWN", "REASONS", "TYPES"]

# fmt: off
IMPORTED = frozenset({
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh",
    "Attention", "AveragePool", "BatchNormalization", "BlackmanWindow", "Cast", "CastLike",
    "Ceil", "Celu", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv", "ConvTranspose",
    "Cos", "Cosh", "CumSum", "DepthToSpace", "DequantizeLinear", "Div", "Dropout", "Einsum",
    "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten", "Floor", "GRU", "Gather",
    "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalLpPool",
    "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample", "GroupNormalization",
    "HammingWindow", "HannWindow", "HardSigmoid", "HardSwish", "Hardmax", "Identity", "If",
    "InstanceNormalization", "IsInf", "IsNaN", "LRN", "LSTM", "LayerNormalization", "LeakyRelu",
    "Less", "LessOrEqual", "Log", "LogSoftmax", "Loop", "LpNormalization", "LpPool", "MatMul",
    "Max", "MaxPool", "Mean", "MeanVarianceNormalization", "Min", "Mish", "Mod", "Mul", "Neg",
    "NonMaxSuppression", "NonZero", "Not", "OneHot", "Or", "PRelu", "Pad", "Pow",
    "QuantizeLinear", "RMSNormalization", "RNN", "RandomNormal", "RandomNormalLike",
    "RandomUniform", "RandomUniformLike", "Range", "Reciprocal", "ReduceL1", "ReduceL2",
    "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize", "ReverseSequence", "RoiAlign",
    "RotaryEmbedding", "Round", "STFT", "Scan", "Scatter", "ScatterElements", "ScatterND",
    "Selu", "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Slice", "Softmax",
    "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Swish",
    "Tan", "Tanh", "TensorScatter", "ThresholdedRelu", "Tile", "TopK", "Transpose", "Trilu",
    "Unsqueeze", "Upsample", "Where", "Xor",
})
"""Standard ops."""

OWN = frozenset({
    "MultiHeadAttention", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization",
    "TRT_Attention", "TRT_FP4DynamicQuantize", "TRT_FP8DequantizeLinear",
    "TRT_FP8QuantizeLinear", "TRT_INT4DequantizeLinear", "TRT_INT4QuantizeLinear",
    "TRT_KVCacheUpdate", "TRT_MXFP8DequantizeLinear", "TRT_MXFP8DynamicQuantize",
})
"""Ops that are in no standard, known whatever their domain."""

NEEDS_PLUGIN = frozenset({
    "CausalConvWithState", "GroupQueryAttention", "LinearAttention", "MatMulNBits", "QMoE",
})
"""Imported into a plugin of NVIDIA's that no wheel contains."""

TYPES = frozenset({
    "BFLOAT16", "BOOL", "FLOAT", "FLOAT16", "FLOAT4E2M1", "FLOAT8E4M3FN", "FLOAT8E8M0", "INT32",
    "INT4", "INT64", "INT8", "UINT8",
})
"""Types of elements, by ONNX name."""
# fmt: on

OF_DIALECT = {
    "CausalConvWithState": "convolutions with a state are lowered for ONNX Runtime alone",
    "Experts": "mixtures of experts are lowered for ONNX Runtime alone",
    "LinearAttention": "linear attention is lowered for ONNX Runtime alone",
    "SharedAttention": "layers that read another layer's cache are lowered for ONNX Runtime alone",
}
"""Why no pass lowers an op of our dialect; ONNX has some of the same names."""

REASONS = {
    "DynamicQuantizeLinear": "scales of activations must be known when the engine is built",
    "TRT_MoE": "its fused form exists for other GPUs only, and it cannot be decomposed",
    "TRT_QuantizedAttention": "no fused form exists for any GPU that was tried",
}
"""Why, where more is known than that there is no importer."""
