"""A prompt that is read in pieces gives the numbers, to the last bit, that it gives in one."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_plugins.attention.spec import FEW_ROUNDED
from tests.plugins.attention.test_cpu_attention import Cached
from tests.plugins.cpu_library import DOMAIN, needs_library

pytestmark = needs_library

LEAST = 9  # queries of a piece: those of fewer are computed in another order
LEAST_ROUNDED = FEW_ROUNDED + 1  # queries and heads that share keys: fewer are those of fp32


@settings(max_examples=60, deadline=None)
@given(
    first=st.integers(1, 300),
    second=st.integers(LEAST, 200),
    heads=st.sampled_from([(1, 1), (4, 1), (6, 2), (16, 1)]),
    more=st.fixed_dictionaries(
        {
            "local_window_size": st.sampled_from([-1, 1, 16, 37, 64, 100]),
            "softcap": st.sampled_from([0.0, 5.0]),
            "rotary": st.booleans(),
            "rounded": st.sampled_from([0, 1]),
        }
    ),
)
def test_the_last_queries_do_not_depend_on_where_the_first_were_read(
    first: int, second: int, heads: tuple[int, int], more: dict[str, Any]
) -> None:
    if more["rounded"]:
        second = max(second, LEAST_ROUNDED)
    whole = Cached([0], first + second, *heads, 16, 512)
    y, *caches = whole.run(DOMAIN, **more)
    rest = Cached([first], second, *heads, 16, 512)
    rest.q, rest.k, rest.v = (each[:, first:] for each in (whole.q, whole.k, whole.v))
    for cache, held in zip(rest.caches, caches, strict=True):
        cache[0, :, :first] = held[:, :first]
    again, *longer = rest.run(DOMAIN, **more)
    assert np.array_equal(again, y[:, first:])
    for ours, theirs in zip(longer, caches, strict=True):
        assert np.array_equal(ours, theirs)
