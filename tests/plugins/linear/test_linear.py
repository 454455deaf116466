"""Linear layers and tables with packed weights against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_passes.lowering.ort.tiles import pack
from lepton_passes.tensors import WeightError
from lepton_plugins.linear.reference import rounded
from lepton_plugins.linear.spec import ACTIVATIONS, EMBEDDING, limit
from tests.plugins.cpu_library import DOMAIN, Array, needs_library, run
from tests.plugins.linear.layers import KINDS, TOLERANCE, Layer, activations, layers

pytestmark = needs_library

# Of Gelu and SiLU: test_activation.py has their errors.
ACTIVATED = 1e-6


@settings(max_examples=60, deadline=None)
@given(
    layer=layers(),
    rows=st.integers(1, 13) | st.sampled_from([97, 200]),
    scale=st.sampled_from([1e-35, 1e-6, 1.0, 1e4, 1e30]),
    biased=st.booleans(),
    seed=st.integers(0, 9),
)
def test_against_the_reference(
    layer: Layer, rows: int, scale: float, biased: bool, seed: int
) -> None:
    layer.check(activations(rows, layer.inner, seed, scale), biased=biased)


@settings(max_examples=20, deadline=None)
@given(bits=st.sampled_from([4, 8]), seed=st.integers(0, 99), rows=st.sampled_from([1, 5, 40]))
def test_offsets_are_those_of_the_weights(bits: int, seed: int, rows: int) -> None:
    """Against numpy alone, for inputs that rounding leaves as they are."""
    layer = Layer(192, 37, bits, 64, seed, form="offsets")
    most = limit(bits)
    x = np.random.default_rng(seed).integers(-most, most + 1, (rows, 6, 32)).astype(np.float32)
    x[:, :, 0] = most
    x = x.reshape(rows, -1)
    q, scale, offset = layer.unpacked()
    assert np.array_equal(q, layer.q)
    weights = layer.q * np.repeat(scale, 64, axis=1).astype(np.float64)
    weights += np.repeat(offset, 64, axis=1)
    size = np.abs(x) @ (np.abs(layer.q) * np.repeat(np.abs(scale), 64, axis=1)).T
    size += np.abs(x) @ np.repeat(np.abs(offset), 64, axis=1).T
    assert (np.abs(layer.run(x) - x @ weights.T) <= TOLERANCE.relative * size).all()


@pytest.mark.parametrize(("bits", "form"), KINDS)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("group", [64, 512])
def test_the_largest_sums_do_not_overflow(bits: int, sign: int, group: int, form: str) -> None:
    """Of rows too many for a tile to be left together, as of few."""
    layer = Layer(512, 16, bits, group, 0, extreme=True, form=form)
    layer.q[:] = layer.q.min() if sign < 0 else layer.q.max()
    layer.pack()
    turns = np.where(np.arange(512) // 2 % 2, 1.0, -1.0)
    for x in (np.ones((4, 512)), turns[None], np.tile(turns, (40, 1))):
        layer.check(x.astype(np.float32))
        layer.check(-x.astype(np.float32))


@settings(max_examples=25, deadline=None)
@given(
    layer=layers(kinds=[kind for kind in KINDS if kind[0] == 4]),
    rows=st.sampled_from([1, 5, 200]),
    seed=st.integers(0, 9),
)
def test_an_order_is_that_of_the_input(layer: Layer, rows: int, seed: int) -> None:
    x = activations(rows, layer.inner, seed)
    order = np.random.default_rng(seed).permutation(layer.inner).astype(np.int32)
    found = layer.run(x, biased=True, order=order)
    assert np.array_equal(found, layer.run(np.ascontiguousarray(x[:, order]), biased=True))


@pytest.mark.parametrize(
    ("bits", "order", "words"),
    [
        (8, np.arange(64), "an order is for 4 bits"),
        (4, np.arange(63), "another length than K"),
        (4, np.arange(64) + 1, "the order leaves the input"),
        (4, np.arange(64) - 1, "the order leaves the input"),
    ],
)
def test_refuses_orders(bits: int, order: Array, words: str) -> None:
    layer = Layer(64, 20, bits, 32, 0)
    with pytest.raises(Exception, match=words):
        layer.run(activations(2, 64, 0), order=order.astype(np.int32))


@settings(max_examples=40, deadline=None)
@given(
    layer=layers(),
    rows=st.sampled_from([1, 4, 7]),
    odd=st.sampled_from([np.nan, np.inf, -np.inf]),
    place=st.integers(0, 1 << 20),
)
def test_what_is_no_number_does_not_pass_for_one(
    layer: Layer, rows: int, odd: float, place: int
) -> None:
    x = activations(rows, layer.inner, 0)
    row, wanted = place % rows, layer.run(x)
    x[row, place % layer.inner] = odd
    found = layer.run(x)
    assert np.isnan(found[row]).all()
    others = np.arange(rows) != row
    assert np.array_equal(found[others], wanted[others])


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("gated", [0, 1])
def test_activations_of_no_number_are_none(name: str, gated: int) -> None:
    layer = Layer(64, 32, 4, 32, 0)
    x = np.full((1, 64), np.nan, np.float32)
    assert np.isnan(layer.run(x, activation=ACTIVATIONS[name], gated=gated)).all()


@settings(max_examples=30, deadline=None)
@given(layer=layers(), rows=st.integers(1, 7), scale=st.sampled_from([0.0, 1e-44, 1e-40, 1e-38]))
def test_zeros_give_the_bias(layer: Layer, rows: int, scale: float) -> None:
    """So does what is so small that the factor to integers would be infinite."""
    found = layer.run(activations(rows, layer.inner, 0, scale), biased=True)
    assert np.array_equal(found, np.tile(layer.bias, (rows, 1)))


@pytest.mark.parametrize(("name", "gated"), [(n, g) for n in ACTIVATIONS for g in (0, 1)])
@settings(max_examples=8, deadline=None)
@given(layer=layers(gated=True), rows=st.integers(1, 13))
def test_activations_and_gates(name: str, gated: int, layer: Layer, rows: int) -> None:
    import torch

    x = activations(rows, layer.inner, 2)
    functions = {
        "none": lambda t: t,
        "gelu": torch.nn.functional.gelu,
        "gelu_tanh": lambda t: torch.nn.functional.gelu(t, approximate="tanh"),
        "silu": torch.nn.functional.silu,
        "relu2": lambda t: torch.nn.functional.relu(t) ** 2,
    }
    plain = torch.from_numpy(layer.run(x, biased=True)).double()
    gate, let = plain.chunk(2, dim=1) if gated else (plain, torch.ones(()))
    wanted = (functions[name](gate) * let).numpy()
    found = layer.run(x, biased=True, activation=ACTIVATIONS[name], gated=gated)
    size = np.maximum(1.0, np.abs(let.numpy())) * max(1.0, float(functions[name](gate).abs().max()))
    assert found.shape == wanted.shape
    assert (np.abs(found - wanted) <= ACTIVATED * size).all()


def test_more_axes_and_no_rows() -> None:
    layer = Layer(64, 20, 8, 64, 0)
    x = activations(6, 64, 0).reshape(2, 3, 64)
    assert np.array_equal(layer.run(x).reshape(6, 20), layer.run(x.reshape(6, 64)))
    assert layer.run(x[:0]).shape == (0, 3, 20)


@settings(max_examples=30, deadline=None)
@given(layer=layers(), seed=st.integers(0, 9))
def test_embedding(layer: Layer, seed: int) -> None:
    ids = np.random.default_rng(seed).integers(-layer.columns, layer.columns, (2, 5))
    (found,) = run(DOMAIN, EMBEDDING.name, [layer.tiles, ids], **layer.attributes)
    weights = layer.unpacked()
    assert np.array_equal(weights.q, layer.q)
    # One rounding, of a product and a sum that fp64 has whole or nearly so.
    assert np.allclose(found, weights.matrix()[ids], rtol=2**-23, atol=0)


@pytest.mark.parametrize(
    ("scale", "words"), [(70.0, "kernels: builtin take it"), (np.nan, "is NaN or infinite")]
)
def test_a_scale_that_tiles_have_no_room_for(scale: float, words: str) -> None:
    scales = np.full((16, 1), scale, np.float32)
    with pytest.raises(WeightError, match=f"^layer: .*{words}"):
        pack(np.ones((16, 32), np.int8), scales, 4, 32, 1, name="layer")


def test_scales_and_offsets_keep_11_bits() -> None:
    layer = Layer(64, 40, 4, 32, 0, form="offsets")
    _, scale, offset = layer.unpacked()
    assert layer.offset is not None
    for kept, given_ in ((scale, layer.scale), (offset, layer.offset)):
        assert (np.abs(kept - given_) <= np.abs(given_) * 2**-11 + 2**-35).all()


def test_rounding_uses_all_levels() -> None:
    x = activations(4, 64, 0)
    for bits in (4, 7, 8):
        q, scale = rounded(x, bits, 32)
        assert np.abs(q).max() == limit(bits)
        error = np.abs(q * scale[:, :, None] - x.reshape(4, 2, 32))
        assert (error <= 0.501 * scale[:, :, None]).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bits": 5}, "bits has to be"),
        ({"block_size": 48}, "block_size has to divide"),
        ({"block_size": 0}, "block_size has to divide"),
        ({"N": 40}, "tiles have another size"),
        ({"offsets": 1}, "tiles have another size"),
        ({"K": 1 << 18, "block_size": 1 << 18, "bits": 7}, "beyond 131,072"),
        ({"offsets": 1, "bits": 7}, "offsets are for 4 and 8 bits"),
        ({"floats": 1, "bits": 8}, "floats are of 4 bits, without offsets"),
        ({"floats": 1, "offsets": 1}, "floats are of 4 bits, without offsets"),
        ({"N": 0}, "out of range"),
        ({"activation": 5}, "activation has to be"),
        ({"N": 24, "gated": 1}, "multiple of 32"),
    ],
)
def test_refuses(change: dict[str, int], words: str) -> None:
    layer = Layer(64, 20, 4, 32, 0)
    with pytest.raises(Exception, match=words):
        layer.run(activations(2, 64, 0), **change)


def test_refuses_inputs_that_do_not_fit() -> None:
    layer = Layer(64, 20, 4, 32, 0)
    with pytest.raises(Exception, match="last dimension"):
        layer.run(activations(2, 32, 0))
    layer.bias = layer.bias[:-1]
    with pytest.raises(Exception, match="bias has another length"):
        layer.run(activations(2, 64, 0), biased=True)
    with pytest.raises(Exception, match="outside the table"):
        run(DOMAIN, EMBEDDING.name, [layer.tiles, np.array([20])], **layer.attributes)
