"""Weights in 4 bits, each column rounded so that it makes up for the error of those before it.

    Before   MatMul(x, Transpose(W))
    After    MatMul(x, Transpose(DequantizeLinear<axis=1, block_size=32>(W_q INT4, W_scale)))
    Refuses  what ``weight-int4`` refuses; a layer whose input was not calibrated; an embedding
             table, tied or not: rows are looked up one by one, and no input weighs them

What is refused is left to ``weight-int4``. The algorithm is GPTQ (Frantar et al., 2022). With ``H``
the sum of ``x x^T`` over a sample, a row ``w`` rounded to ``q`` costs ``(w - q) H (w - q)^T``.
Columns are rounded in turn, those with the largest inputs first, and the error of a column is
spread over the columns that are still to come, by the Cholesky factor of the inverse of ``H``.
Scales are chosen before, as for rounding to nearest, with the diagonal of ``H`` as the cost of an
error. A row that rounding to nearest would serve better on the sample keeps that.

A weight is computed when it is first read and then kept, packed, in a nameless file: whoever reads
it again reads that. In memory are one ``H``, its factor and a block of rows. The numbers are those
of the processor, whose BLAS has its own order of sums; not of the number of threads.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from threading import Lock
from typing import BinaryIO

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.quant._sampled import Sampled
from lepton_passes.quant.products import inverse_cholesky, product
from lepton_passes.quant.scales import MORE_LEVELS, importance_of, quantize_int4
from lepton_passes.quant.weights import Choose, is_table
from lepton_passes.tensors import StreamedTensor, rows_of

__all__ = ["DAMPING", "WeightInt4Gptq", "column_order", "gptq", "inverse_factor"]

DAMPING = 0.01
"""Part of the mean of the diagonal of ``H`` that is added to it."""

# Columns that are rounded before the rest of the matrix is told: small enough for their rows to
# stay in the cache of a core, large enough for one product to be worth its call.
_PANEL = 32
_ROW_ELEMENTS = 1 << 22
_TRIES = 6


class WeightInt4Gptq(Sampled):
    """Store weights in 4 bits, rounded with respect to a sample of their inputs.

    Args:
        choose: format of each parameter; left out, this format for all.
        hessians: ``H`` of the input of each linear layer, (columns, columns), by the name of its
            weight. A value is asked for once, when the weight is first read.
    """

    name = "weight-int4-gptq"
    summary = "GPTQ: weights in 4 bits, rounding errors compensated on a sample"

    def __init__(
        self,
        choose: Choose | None = None,
        hessians: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        super().__init__(choose, hessians)
        self._spill: _Spill | None = None

    def declines(self, body: Body, value: ir.Value) -> str | None:
        if is_table(value):
            return "it is a table whose rows are looked up, and no sample weighs them"
        return super().declines(body, value)

    def quantized(self, tensor: ir.TensorProtocol, group: int | None) -> _Rows:
        assert group is not None
        if self._spill is None:
            self._spill = _Spill()
        return _Rows(tensor, self.name_of(tensor), self.seen, group, self._spill)


class _Spill:
    """A file without a name, which is gone with the last tensor that reads it."""

    def __init__(self) -> None:
        # Closed when it is collected: tensors read it for as long as they live.
        self._file: BinaryIO = tempfile.TemporaryFile(prefix="lepton-gptq-")  # noqa: SIM115
        self.computing = Lock()  # one weight at a time: its factor is large

    def add(self, array: np.ndarray) -> int:
        """Append bytes; returns where they begin."""
        offset = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(np.ascontiguousarray(array).data)
            self._file.flush()
        except OSError as error:
            error.filename = tempfile.gettempdir()  # the file has no name to be found by
            raise
        return offset

    def read(self, offset: int, size: int) -> bytes:
        """Bytes from ``offset``; any thread may ask."""
        return os.pread(self._file.fileno(), size, offset)


class _Rows:
    """Rows of one weight and their scales, computed once."""

    def __init__(
        self,
        source: ir.TensorProtocol,
        name: str,
        hessians: Mapping[str, np.ndarray],
        group: int,
        spill: _Spill,
    ) -> None:
        self._source, self._name, self._hessians = source, name, hessians
        self._group, self._spill = group, spill
        self._count, self._columns = (int(d) for d in source.shape.numpy())
        self._places: list[tuple[int, int, int]] | None = None  # first row, bytes of q, of scales

    def weight(self, dtype: ir.DataType) -> StreamedTensor:
        """The integers, (rows, columns) in INT4."""

        def read(start: int, stop: int) -> np.ndarray:
            packed = self._stored(start, stop, 1, self._columns // 2, np.uint8)
            q = np.empty((stop - start, self._columns), dtype=np.int8)
            np.left_shift(packed, 4, out=q[:, 0::2].view(np.uint8))
            q[:, 0::2] >>= 4
            np.right_shift(packed.view(np.int8), 4, out=q[:, 1::2])
            return q.view(dtype.numpy())

        return StreamedTensor(f"{self._source.name}_q", dtype, (self._count, self._columns), read)

    def scale(self) -> StreamedTensor:
        """The scales, fp32."""
        groups = self._columns // self._group

        def read(start: int, stop: int) -> np.ndarray:
            return self._stored(start, stop, 2, groups, np.float32)

        return StreamedTensor(
            f"{self._source.name}_scale", ir.DataType.FLOAT, (self._count, groups), read
        )

    def _stored(
        self, start: int, stop: int, which: int, width: int, dtype: type[np.generic]
    ) -> np.ndarray:
        """Rows of the integers (1) or of the scales (2), which were written in blocks of rows."""
        with self._spill.computing:
            if self._places is None:
                self._places = self._compute()
        row_bytes = width * np.dtype(dtype).itemsize
        parts = []
        ends = [place[0] for place in self._places[1:]] + [self._count]
        for place, end in zip(self._places, ends, strict=True):
            low, high = max(start, place[0]), min(stop, end)
            if low < high:
                offset = place[which] + (low - place[0]) * row_bytes
                parts.append(self._spill.read(offset, (high - low) * row_bytes))
        # Bytes of Python are read-only, an array of bytearray is not.
        return np.frombuffer(bytearray(b"".join(parts)), dtype).reshape(-1, width)

    def _compute(self) -> list[tuple[int, int, int]]:
        hessian = self._hessians[self._name]
        assert hessian.shape == (self._columns, self._columns)
        order = column_order(hessian)
        factor = inverse_factor(hessian, order)
        places = []
        step = max(1, _ROW_ELEMENTS // self._columns)
        for start in range(0, self._count, step):
            stop = min(self._count, start + step)
            w = np.asarray(rows_of(self._source, start, stop), dtype=np.float32)
            q, scale = gptq(w, hessian, self._group, factor, order)
            low = q.view(np.uint8)
            packed = (low[:, 0::2] & 0x0F) | (low[:, 1::2] << 4)
            places.append((start, self._spill.add(packed), self._spill.add(scale)))
        return places


def gptq(
    w: np.ndarray,
    hessian: np.ndarray,
    group: int,
    factor: np.ndarray | None = None,
    order: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Round rows with respect to ``hessian``.

    Args:
        w: fp32 (rows, columns), columns a multiple of ``group``.
        hessian: (columns, columns), the sum of ``x x^T``.
        factor: ``inverse_factor(hessian, order)``, where the caller has it.
        order: columns in the order in which they are rounded; left out, as they come.

    Returns:
        int8 in -8..7 (rows, columns) and fp32 (rows, columns / group). No row has more
        error on the sample than rounding to nearest has.
    """
    order = np.arange(w.shape[1]) if order is None else order
    factor = inverse_factor(hessian, order) if factor is None else factor
    importance = importance_of(np.diagonal(hessian))
    _, scale = quantize_int4(w, group, MORE_LEVELS, importance)
    # Columns become rows of memory: a step of the algorithm works on one of them, whole.
    left = np.ascontiguousarray(w.T[order])
    wide = np.ascontiguousarray(scale.T)
    inverse = np.divide(1, wide, out=np.zeros_like(wide), where=wide != 0)
    rounded = np.empty(left.shape, dtype=np.int8)
    for start in range(0, len(left), _PANEL):
        panel = slice(start, min(len(left), start + _PANEL))
        errors = _round_panel(left, rounded, panel, factor, wide, inverse, order // group)
        left[panel.stop :] -= product(factor[panel, panel.stop :].T, errors)
    q = np.empty(w.shape, dtype=np.int8)
    q[:, order] = rounded.T
    nearest, plain = quantize_int4(w, group)
    worse = _loss(w, q, scale, hessian) > _loss(w, nearest, plain, hessian)
    q[worse], scale[worse] = nearest[worse], plain[worse]
    return q, scale


def inverse_factor(hessian: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The upper triangular ``U`` with ``U^T U = H^-1``, columns of ``H`` taken in ``order``.

    ``H`` is damped; where the sample never used a column its diagonal becomes 1. Computed in fp64.

    Returns:
        fp32 (columns, columns).

    Raises:
        ValueError: ``H`` is not finite.
    """
    diagonal = np.diagonal(hessian).astype(np.float64)
    if not np.isfinite(hessian).all():
        raise ValueError("the sample has inputs that are not finite")
    unused = diagonal <= 0
    mean = float(diagonal.mean()) or 1.0
    damping = DAMPING
    for _ in range(_TRIES):
        # Backwards, so that a lower factor is the upper one of what we want.
        back = hessian[np.ix_(order[::-1], order[::-1])].astype(np.float64)
        back[np.diag_indices_from(back)] += (damping * mean + unused)[order[::-1]]
        try:
            inverse = inverse_cholesky(back)
        except np.linalg.LinAlgError:  # rounding made it indefinite
            damping *= 10
            continue
        return np.ascontiguousarray(inverse[::-1, ::-1], dtype=np.float32)
    raise ValueError("the Hessian of the sample is not positive semidefinite")


def column_order(hessian: np.ndarray) -> np.ndarray:
    """Columns by falling square of their inputs; equal ones as they come."""
    return np.argsort(-np.diagonal(hessian), kind="stable")


def _round_panel(
    left: np.ndarray,
    rounded: np.ndarray,
    panel: slice,
    factor: np.ndarray,
    scale: np.ndarray,
    inverse: np.ndarray,
    groups: np.ndarray,
) -> np.ndarray:
    """Round some columns (here rows) of ``left``, each after its share of the errors before it.

    Returns:
        The error of each, over its diagonal in ``factor``: what the columns behind have to bear.
    """
    errors = np.empty((panel.stop - panel.start, left.shape[1]), dtype=np.float32)
    for index in range(panel.start, panel.stop):
        own = left[index]
        level = np.clip(np.rint(own * inverse[groups[index]]), -8, 7)
        rounded[index] = level
        error = np.divide(
            own - level * scale[groups[index]],
            factor[index, index],
            out=errors[index - panel.start],
        )
        behind = slice(index + 1, panel.stop)
        left[behind] -= factor[index, behind][:, None] * error
    return errors


def _loss(w: np.ndarray, q: np.ndarray, scale: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """``(w - q) H (w - q)^T`` of each row."""
    groups = q.reshape(*scale.shape, -1) * scale[..., None]
    error = w - groups.reshape(w.shape)
    cost = product(error, hessian.astype(np.float32))
    return np.asarray(np.einsum("ij,ij->i", cost, error))
