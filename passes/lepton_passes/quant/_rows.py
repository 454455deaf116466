"""Quantized rows of a weight and the scales that come with them, from one reading."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

import numpy as np
import onnx_ir as ir

from lepton_passes.tensors import StreamedTensor, WeightError, rows_of

__all__ = ["QuantizedRows"]

Quantize = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

# Rows for scales alone, when they are asked for before the weight: about 4 M elements a block.
_BLOCK = 1 << 22


class QuantizedRows:
    """A weight quantized row by row. Reading it raises WeightError for NaN or infinity.

    Scales are kept as rows are produced. Whoever writes the weight first and its scales after reads
    the source once; whoever asks for scales first reads it twice.
    """

    def __init__(
        self, source: ir.TensorProtocol, quantize: Quantize, scale_shape: tuple[int, ...]
    ) -> None:
        self._source, self._quantize, self._shape = source, quantize, scale_shape
        self._scales: np.ndarray | None = None
        self._known = np.zeros(0, dtype=bool)
        self._first = Lock()  # rows are asked for by several threads

    def weight(self, dtype: ir.DataType) -> StreamedTensor:
        """The integers, (rows, columns) in INT4 or INT8."""
        shape = tuple(int(d) for d in self._source.shape.numpy())

        def read(start: int, stop: int) -> np.ndarray:
            return self._rows(start, stop).view(dtype.numpy())

        return StreamedTensor(f"{self._source.name}_q", dtype, shape, read)

    def scale(self) -> StreamedTensor:
        """The scales, fp32."""
        return StreamedTensor(
            f"{self._source.name}_scale", ir.DataType.FLOAT, self._shape, self._scale_rows
        )

    def _rows(self, start: int, stop: int) -> np.ndarray:
        w = np.asarray(rows_of(self._source, start, stop), dtype=np.float32)
        # A sum tells most at once, in a hundredth of the time that rounding takes.
        if not np.isfinite(w.sum()) and not np.isfinite(w).all():
            raise WeightError(f"{self._source.name}: a weight is NaN or infinite")
        q, scale = self._quantize(w)
        with self._first:
            if self._scales is None:
                self._known = np.zeros(self._shape[0], dtype=bool)
                self._scales = np.empty(self._shape, dtype=np.float32)
        self._scales[start:stop] = scale
        self._known[start:stop] = True
        return q

    def _scale_rows(self, start: int, stop: int) -> np.ndarray:
        step = max(1, _BLOCK // max(1, int(self._source.shape.numpy()[1])))
        for row in range(start, stop, step):
            end = min(stop, row + step)
            if self._scales is None or not self._known[row:end].all():
                self._rows(row, end)
        assert self._scales is not None
        return self._scales[start:stop]
