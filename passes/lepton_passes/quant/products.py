"""Products of matrices over several threads, the same whatever their number.

A BLAS adds in another order with another number of threads. Here a product is cut by its shape
alone, and each part is left to one thread of its own, as ``threadpoolctl`` or an environment
variable tell the BLAS.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from lepton_passes.tensors import WORKERS

__all__ = ["inverse_cholesky", "product"]

SLAB = 512
"""Columns of a part."""

SMALL = 1 << 27
"""Multiplications below which a product is not worth threads."""

LEAF = 64


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a @ b``.

    Args:
        a: (rows, inner).
        b: (inner, columns), of the same dtype.
    """
    rows, columns = len(a), b.shape[1]
    if rows * columns * len(b) < SMALL or columns <= SLAB:
        return np.asarray(a @ b)
    found = np.empty((rows, columns), dtype=a.dtype)
    slabs = [slice(at, at + SLAB) for at in range(0, columns, SLAB)]

    def multiply(slab: slice) -> None:
        np.matmul(a, b[:, slab], out=found[:, slab])

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(multiply, slabs))
    return found


def inverse_cholesky(a: np.ndarray) -> np.ndarray:
    """The inverse of the lower Cholesky factor of ``a``, half by half, so that most of it is
    products: ``X`` lower triangular with ``X a X^T = 1``.

    Args:
        a: symmetric, (columns, columns); its lower half is read.

    Raises:
        numpy.linalg.LinAlgError: it is not positive definite.
    """
    if len(a) <= LEAF:
        return np.tril(np.linalg.inv(np.linalg.cholesky(a)))
    half = len(a) // 2
    first = inverse_cholesky(a[:half, :half])
    below = product(a[half:, :half], np.ascontiguousarray(first.T))
    last = inverse_cholesky(a[half:, half:] - product(below, np.ascontiguousarray(below.T)))
    found = np.zeros_like(a)
    found[:half, :half], found[half:, half:] = first, last
    found[half:, :half] = -product(last, product(below, first))
    return found
