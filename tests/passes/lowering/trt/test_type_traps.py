"""Types and quantized weights that TensorRT rejects or misreads, each named by legal-trt."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.passes.lowering.trt.test_legal_trt import refused
from tests.passes.support import HEADER, load

KINDS = {
    "f": ir.DataType.FLOAT,
    "h": ir.DataType.FLOAT16,
    "b": ir.DataType.BFLOAT16,
    "i": ir.DataType.INT32,
}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("y = Cast <to = 11> (x)", "DOUBLE is no type of TensorRT"),
        ("y = Cast <to = 5> (x)", "INT16 is no type of TensorRT"),
        ("y = Add (x, h)", "its inputs differ in type: FLOAT, FLOAT16"),
        ("y = MatMul (h, x)", "its inputs differ in type: FLOAT, FLOAT16"),
        ("seen = Greater (x, x) y = Where (seen, h, x)", "its inputs differ in type: FLOAT, FL"),
        ("y = RotaryEmbedding (h4, x, x)", "x, cos and sin differ in type: FLOAT, FLOAT16"),
    ],
)
def test_types(text: str, reason: str) -> None:
    inputs = "float[b, s, 8] x, float16[b, s, 8] h, float16[b, 2, s, 16] h4"
    found = refused(load(f"main ({inputs}) => (y) {{ {text} }}"))
    assert [each.startswith(reason) for each in found] == [True]


def _weight(
    q: ir.DataType,
    scales: tuple[int, ...],
    attributes: str,
    *,
    zero: int | None = None,
    sizes: tuple[int, ...] = (8, 200),
    kind: str = "h",
) -> ir.Model:
    """y = MatMul(x, Transpose(DequantizeLinear(q, scale[, zero])))."""
    third = ", zero" if zero is not None else ""
    turned = ", ".join(str(i) for i in reversed(range(len(sizes))))
    text = f"""main (float16[b, 200] x) => (y) {{
        w = DequantizeLinear <{attributes}> (q, scale{third})
        t = Transpose <perm = [{turned}]> (w)
        y = MatMul (x, t) }}"""
    model = ir.from_onnx_text(f"{HEADER}\n{text}")
    node = next(n for n in model.graph if n.op_type == "DequantizeLinear")
    tensors = [np.zeros(sizes), np.ones(scales), np.full(scales, zero or 0)]
    for value, array, dtype in zip(node.inputs, tensors, (q, KINDS[kind], q), strict=False):
        assert value is not None
        value.const_value = ir.tensor(array.astype(dtype.numpy()), dtype=dtype, name=value.name)
        value.type, value.shape = ir.TensorType(dtype), value.const_value.shape
        model.graph.register_initializer(value)
    return model


INT4, INT8 = ir.DataType.INT4, ir.DataType.INT8
BLOCKS = "axis = 1, block_size = {}"


@pytest.mark.parametrize(
    ("dtype", "scales", "attributes"),
    [
        (INT4, (8, 2), BLOCKS.format(100)),
        (INT8, (8,), "axis = 0"),
        (INT8, (), "axis = 0"),
        (ir.DataType.FLOAT8E4M3FN, (8,), "axis = 0"),
    ],
)
def test_weights_that_are_fine(
    dtype: ir.DataType, scales: tuple[int, ...], attributes: str
) -> None:
    assert refused(_weight(dtype, scales, attributes)) == []
    assert refused(_weight(dtype, scales, attributes, zero=0)) == []


@pytest.mark.parametrize(
    ("dtype", "scales", "attributes", "options", "reason"),
    [
        (INT4, (8, 2), BLOCKS.format(128), {}, "block_size 128 is ignored: 2 scales for 200"),
        (INT4, (4, 2), BLOCKS.format(100), {}, "only axis 1 may be blocked: scales (4, 2)"),
        (INT4, (8,), BLOCKS.format(100), {}, "scales by block have as many axes as what they"),
        (INT4, (8, 2), "axis = 1", {}, "scales by block without block_size"),
        (INT8, (7,), "axis = 0", {}, "7 scales for the 8 entries of axis 0"),
        (INT8, (8,), "axis = 0", {"zero": 3}, "its zero points are not zero"),
        (INT4, (8, 2), BLOCKS.format(100), {"zero": 1}, "its zero points are not zero"),
        (ir.DataType.UINT8, (8,), "axis = 0", {}, "UINT8 cannot be quantized to"),
        (ir.DataType.UINT4, (8, 2), BLOCKS.format(100), {}, "UINT4 cannot be quantized to"),
        (ir.DataType.FLOAT8E5M2, (), "axis = 0", {}, "FLOAT8E5M2 cannot be quantized to"),
        (INT8, (8,), "axis = 0", {"kind": "f"}, "its inputs differ in type: FLOAT, FLOAT16"),
        (INT8, (8,), "axis = 0", {"kind": "i"}, "scales of INT32"),
        (
            INT4,
            (2, 8, 200),
            "axis = 0, block_size = 4",
            {"sizes": (8, 8, 200)},
            "blocks lie along the last axis or the one before it",
        ),
    ],
)
def test_weights(
    dtype: ir.DataType,
    scales: tuple[int, ...],
    attributes: str,
    options: dict[str, object],
    reason: str,
) -> None:
    found = refused(_weight(dtype, scales, attributes, **options))  # type: ignore[arg-type]
    assert any(each.startswith(reason) for each in found)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("q = QuantizeLinear (x, one)", "UINT8 cannot be quantized to"),
        (
            "q = QuantizeLinear <output_dtype = 3, axis = 0> (x, rows)",
            "scales of activations that are computed at run time, more than one",
        ),
        ("q = QuantizeLinear (x, one, zero)", "its zero points are not constant"),
        ("q = QuantizeLinear <output_dtype = 3> (x, one)", None),
        ("none = Constant <value = int8 {0}> () q = QuantizeLinear (x, one, none)", None),
        ("q = QuantizeLinear <output_dtype = 17> (x, scalar)", None),
    ],
)
def test_activations(text: str, reason: str | None) -> None:
    model = load(f"""main (float[s, 8] x, float[s] rows, int8 zero, float scalar) => (y) {{
        one = Constant <value_float = 0.1> ()
        {text}
        y = DequantizeLinear (q, one) }}""")
    found = refused(model)
    assert (reason is None) == (found == [])
    assert any(each.startswith(reason or "") for each in [*found, ""])


@pytest.mark.parametrize(
    ("op", "block", "found"),
    [
        ("TRT_FP4DynamicQuantize", 16, []),
        ("TRT_FP4DynamicQuantize", 32, ["block_size 32, where only 16 exists"]),
        ("TRT_MXFP8DynamicQuantize", 32, []),
        ("TRT_MXFP8DynamicQuantize", 16, ["block_size 16, where only 32 exists"]),
    ],
)
def test_blocks_of_scales_that_are_found_at_run_time(op: str, block: int, found: list[str]) -> None:
    model = load(f"""main (float16[b, 64] x, float g) => (q, s) {{
        q, s = trt.{op} <block_size = {block}> (x, g) }}""")
    assert refused(model) == found
