"""Weights in half precision, cast row by row, and what must not be lost on the way.

fp16 ends at 65504 and knows nothing below 6e-8. A weight beyond the range would become infinite, a
tensor below it zero: both stop whoever writes the weight, with its name. bf16 has the range of
fp32.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lepton_passes.tensors import StreamedTensor, WeightError, rows_of

__all__ = ["FP16_MOST", "HalfRangeError", "narrowed"]

FP16_MOST = 65504.0


class HalfRangeError(WeightError):
    """A weight does not fit fp16; the message names it and says what does."""


def narrowed(tensor: ir.TensorProtocol, dtype: ir.DataType) -> ir.TensorProtocol:
    """The values of an fp32 tensor rounded to FLOAT16 or BFLOAT16, lazily.

    Reading it raises HalfRangeError when a value is beyond fp16, or when a block of rows that is
    not zero becomes zero.
    """
    target = dtype.numpy()
    name = tensor.name or ""

    def read(start: int, stop: int) -> np.ndarray:
        rows = np.asarray(rows_of(tensor, start, stop))
        if dtype != ir.DataType.FLOAT16:
            return rows.astype(target)
        with np.errstate(over="ignore", under="ignore"):
            made = rows.astype(target)
        _check(name, rows, made)
        return made

    return StreamedTensor(name, dtype, tensor.shape.numpy(), read)


def _check(name: str, rows: np.ndarray, made: np.ndarray) -> None:
    if not np.isfinite(made).all() and np.isfinite(rows).all():
        most = float(np.abs(rows).max())
        raise HalfRangeError(
            f"{name} holds {most:g}, and fp16 ends at {FP16_MOST:g}: compute in bf16"
        )
    if not made.any() and rows.any():
        most = float(np.abs(rows).max())
        raise HalfRangeError(f"{name} is at most {most:g}, which is zero in fp16: compute in bf16")
