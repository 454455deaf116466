"""Products in parts: those of numpy, whatever the number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from lepton_passes.quant import products
from lepton_passes.quant.products import LEAF, SLAB, SMALL, inverse_cholesky, product


def _random(*shape: int, seed: int, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_parts_are_the_whole(rows: int, inner: int, columns: int, seed: int) -> None:
    a, b = _random(rows, inner, seed=seed), _random(inner, columns, seed=seed + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "SMALL", 0)
        patch.setattr(products, "SLAB", 8)
        found = product(a, b)
    np.testing.assert_allclose(found, a @ b, rtol=0, atol=1e-5)
    assert found.dtype == a.dtype


@pytest.mark.parametrize("transposed", [False, True])
def test_threads_do_not_decide(monkeypatch: pytest.MonkeyPatch, transposed: bool) -> None:
    """Large enough to be cut; a transposed array is read as it lies."""
    a, b = _random(700, 300, seed=1), _random(300, 2 * SLAB + 100, seed=2)
    assert len(a) * a.shape[1] * b.shape[1] >= SMALL
    if transposed:
        a = np.asfortranarray(a)
    found = []
    with threadpool_limits(1, "blas"):  # as builds have it
        for workers in (1, 4):
            monkeypatch.setattr(products, "WORKERS", workers)
            found.append(product(a, b))
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0], a @ b, rtol=0, atol=1e-3)


@pytest.mark.parametrize("width", [1, LEAF, LEAF + 1, 3 * LEAF - 1, 700])
def test_the_inverse_of_a_factor(width: int) -> None:
    x = _random(2 * width, width, seed=width, dtype=np.float64)
    a = x.T @ x + np.eye(width)
    found = inverse_cholesky(a)
    assert np.array_equal(found, np.tril(found))
    np.testing.assert_allclose(found @ a @ found.T, np.eye(width), rtol=0, atol=1e-9)
    np.testing.assert_allclose(found, np.linalg.inv(np.linalg.cholesky(a)), rtol=0, atol=1e-9)
    upper = a + np.triu(np.full_like(a, 7.0), 1)  # which nobody reads
    np.testing.assert_array_equal(inverse_cholesky(upper), found)


@pytest.mark.parametrize("at", [0, LEAF, 2 * LEAF])
def test_what_has_no_factor_is_told(at: int) -> None:
    a = np.eye(2 * LEAF + 5)
    a[at, at] = -1.0
    with pytest.raises(np.linalg.LinAlgError):
        inverse_cholesky(a)
