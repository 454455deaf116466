"""Element types of torch by those of ONNX, and the end of a slice that has none."""

from __future__ import annotations

import onnx_ir as ir
import torch

__all__ = ["DTYPES", "END"]

END = torch.iinfo(torch.int64).max

DTYPES = {
    torch.float32: ir.DataType.FLOAT,
    torch.float16: ir.DataType.FLOAT16,
    torch.bfloat16: ir.DataType.BFLOAT16,
    torch.float64: ir.DataType.DOUBLE,
    torch.int64: ir.DataType.INT64,
    torch.int32: ir.DataType.INT32,
    torch.int8: ir.DataType.INT8,
    torch.uint8: ir.DataType.UINT8,
    torch.bool: ir.DataType.BOOL,
}
