"""The same bits of a layer on all processors, from any number of threads and in any company."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_plugins.linear.spec import ACTIVATIONS
from tests.plugins.cpu_library import OTHER_PROCESSORS, needs_library
from tests.plugins.linear.layers import KINDS, Layer, activations, layers

pytestmark = needs_library

ODD = (np.nan, np.inf, -np.inf, 1e-44, 1e30)
"""One number of a row, among others that are near 1 or 0."""


@pytest.mark.parametrize("gated", [0, 1])
@settings(max_examples=40, deadline=None)
@given(
    data=st.data(),
    rows=st.integers(1, 13) | st.just(111),
    scale=st.sampled_from([0.0, 1e-44, 1e-38, 1e-37, 1.0, 1e30]),
    biased=st.booleans(),
    activation=st.sampled_from(list(ACTIVATIONS.values())),
    odd=st.sampled_from(ODD),
)
def test_all_processors_give_the_same_bits(
    gated: int,
    data: st.DataObject,
    rows: int,
    scale: float,
    biased: bool,
    activation: int,
    odd: float,
) -> None:
    layer = data.draw(layers(gated=bool(gated)))
    x = activations(rows, layer.inner, 0, scale)
    x[rows // 2, data.draw(st.integers(0, layer.inner - 1))] = odd
    how = {"biased": biased, "activation": activation, "gated": gated}
    found = layer.run(x, **how)
    assert np.isnan(found[rows // 2]).all() == (not np.isfinite(odd))
    for defined in OTHER_PROCESSORS:
        other = layer.run(x, defines=[defined], **how)
        assert np.array_equal(other, found, equal_nan=True), defined


@pytest.mark.parametrize("defined", OTHER_PROCESSORS)
@pytest.mark.parametrize(("bits", "form"), KINDS)
def test_all_processors_give_the_same_bits_of_any_rows(bits: int, form: str, defined: str) -> None:
    """72 columns end in half a tile that has no other beside it, 96 are 48 with a gate."""
    for columns, how in ((72, {"activation": 3, "gated": 0}), (96, {"activation": 2, "gated": 1})):
        layer = Layer(384, columns, bits, 64, 3, form=form)
        for rows in (1, 2, 3, 4, 5, 6, 7, 8, 13, 111):
            x = activations(rows, layer.inner, rows)
            found = layer.run(x, biased=True, defines=[defined], **how)
            assert np.array_equal(found, layer.run(x, biased=True, **how)), (rows, how)


@settings(max_examples=40, deadline=None)
@given(
    layer=layers(gated=True),
    gated=st.integers(0, 1),
    rows=st.integers(1, 13) | st.sampled_from([97, 200]),
    data=st.data(),
)
def test_threads_and_company_change_nothing(
    layer: Layer, gated: int, rows: int, data: st.DataObject
) -> None:
    x = activations(rows, layer.inner, 0)
    first = data.draw(st.integers(0, rows - 1))
    last = data.draw(st.integers(first + 1, rows))
    all_, threaded = (layer.run(x, biased=True, gated=gated, threads=n) for n in (1, 3))
    assert np.array_equal(all_, threaded)
    some = layer.run(x[first:last], biased=True, gated=gated)
    assert np.array_equal(some, all_[first:last])


@pytest.mark.parametrize("defined", OTHER_PROCESSORS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_of_all_processors_give_the_same_bits(name: str, defined: str) -> None:
    layer = Layer(64, 40, 7, 8, 1)
    x = activations(9, layer.inner, 2, 30.0)
    x[3] = np.nan
    found = layer.run(x, activation=ACTIVATIONS[name], defines=[defined])
    assert np.array_equal(found, layer.run(x, activation=ACTIVATIONS[name]), equal_nan=True)
    assert np.isnan(found[3]).all()
