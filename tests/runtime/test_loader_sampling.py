"""The largest of many logits, against sorting them all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_compile.runtime.loader_sampling import largest


@settings(max_examples=100, deadline=None)
@given(
    size=st.sampled_from([1, 2, 255, 256, 257, 1000, 20_000]),
    levels=st.sampled_from([1, 3, 1 << 30]),
    part=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_they_are_those_of_a_sort(size: int, levels: int, part: float, seed: int) -> None:
    """Of equal ones any may be left out, of each once."""
    values = np.random.default_rng(seed).integers(-levels, levels, size).astype(np.float32)
    for count in {1, 64, 1 + int(part * size), size, size + 1}:
        ids = largest(values, count)
        assert len({*ids.tolist()}) == len(ids) == min(count, size)
        assert values[ids].tolist() == np.sort(values)[::-1][:count].tolist()


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("share", [0.0001, 0.01, 1.0])
def test_what_is_no_number_counts_as_the_largest(wrong: float, share: float) -> None:
    values = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    values[: int(share * len(values))] = wrong
    found = values[largest(values, 40)]
    least = min(40, int(share * len(values)))
    assert len(found) == 40
    assert np.array_equal(found == wrong, np.arange(40) < least) or np.isnan(found).sum() >= least
