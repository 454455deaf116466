"""Linear layers and tables with packed weights against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_passes.lowering.ort.tiles import pack
from lepton_passes.tensors import WeightError
from lepton_plugins.linear.reference import Unpacked, linear, rounded, unpacked
from lepton_plugins.linear.spec import ACTIVATIONS, EMBEDDING, FLOATS, SPEC, TILE, UNITS, limit
from tests.plugins.cpu_library import DOMAIN, OTHER_PROCESSORS, Array, needs_library, run

pytestmark = needs_library

TOLERANCE = SPEC.tolerance["float32"]
LEVELS = {4: (-8, 7), 7: (-63, 63), 8: (-127, 127)}
KINDS = [(4, ""), (4, "offsets"), (4, "floats"), (7, ""), (8, ""), (8, "offsets")]
"""Bits, and what else there is: offsets of groups, or floats in place of integers."""
# Of Gelu and SiLU: test_activation.py has their errors.
ACTIVATED = 1e-6


class Layer:
    """Random weights, packed; ``extreme`` takes the largest integers everywhere.

    ``form`` is one of ``KINDS``.
    """

    def __init__(
        self,
        inner: int,
        columns: int,
        bits: int,
        group: int,
        seed: int,
        *,
        extreme: bool = False,
        form: str = "",
    ) -> None:
        random = np.random.default_rng(seed)
        low, high = LEVELS[bits]
        low -= form == "offsets" and bits == 8
        levels = FLOATS if form == "floats" else range(low, high + 1)
        some = [min(levels), max(levels)] if extreme else levels
        self.q = random.choice(some, (columns, inner)).astype(np.int8)
        self.scale = random.normal(0, 0.02, (columns, inner // group)).astype(np.float32)
        self.bits, self.group, self.inner, self.columns = bits, group, inner, columns
        self.offset, self.form = None, form
        if form == "offsets":
            self.offset = random.normal(0, 0.2, self.scale.shape).astype(np.float32)
        self.pack()
        self.bias = random.standard_normal(columns).astype(np.float32)

    def pack(self) -> None:
        """Make tiles of what it is now."""
        tiles = -(-self.columns // TILE)
        floats = self.form == "floats"
        weights = (self.q, self.scale, self.bits, self.group, tiles, self.offset)
        self.tiles = pack(*weights, floats=floats)

    @property
    def forms(self) -> dict[str, bool]:
        """What its tiles have, as the reference asks for it."""
        return {self.form: True} if self.form else {}

    def unpacked(self) -> Unpacked:
        """What its tiles hold."""
        return unpacked(self.tiles, self.inner, self.columns, self.bits, self.group, **self.forms)

    @property
    def attributes(self) -> dict[str, int]:
        """Of both operators."""
        sizes = {"K": self.inner, "N": self.columns, "bits": self.bits, "block_size": self.group}
        return sizes | {"offsets": 0, "floats": 0} | self.forms

    def run(self, x: Array, *, biased: bool = False, **more: Any) -> Array:
        """What the operator gives."""
        how = self.attributes | {"activation": 0, "gated": 0} | more
        inputs = [x, self.tiles, self.bias if biased else None]
        return run(DOMAIN, SPEC.name, inputs, **how)[0]

    def check(self, x: Array, *, biased: bool = False) -> None:
        """Hold the operator against the reference."""
        found = self.run(x, biased=biased)
        bias = self.bias if biased else None
        shape = (self.columns, self.bits, self.group)
        wanted, size = linear(x, self.tiles, bias, *shape, **self.forms)
        assert found.shape == wanted.shape
        assert (np.abs(found - wanted) <= TOLERANCE.relative * size + 1e-30).all()


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    bits, form = draw(st.sampled_from(KINDS))
    group = UNITS[bits] * draw(st.integers(1, 6))
    inner = group * draw(st.integers(1, 9))
    seed, extreme = draw(st.integers(0, 99)), draw(st.booleans())
    return Layer(inner, draw(st.integers(1, 70)), bits, group, seed, extreme=extreme, form=form)


def _activations(rows: int, inner: int, seed: int, scale: float = 1.0) -> Array:
    x = np.random.default_rng(seed).standard_normal((rows, inner)) * scale
    return x.astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    layer=layers(),
    rows=st.sampled_from([1, 2, 3, 4, 5, 8, 97, 200]),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
    biased=st.booleans(),
    seed=st.integers(0, 9),
)
def test_against_the_reference(
    layer: Layer, rows: int, scale: float, biased: bool, seed: int
) -> None:
    layer.check(_activations(rows, layer.inner, seed, scale), biased=biased)


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


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), rows=st.sampled_from([1, 5, 200]))
def test_an_order_is_that_of_the_input(seed: int, rows: int) -> None:
    layer = Layer(192, 37, 4, 64, seed, form=["", "offsets", "floats"][seed % 3])
    x = _activations(rows, 192, seed)
    order = np.random.default_rng(seed).permutation(192).astype(np.int32)
    inputs = [x, layer.tiles, layer.bias, order]
    how = layer.attributes | {"activation": 0, "gated": 0}
    (found,) = run(DOMAIN, SPEC.name, inputs, **how)
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
    inputs = [_activations(2, 64, 0), layer.tiles, None, order.astype(np.int32)]
    with pytest.raises(Exception, match=words):
        run(DOMAIN, SPEC.name, inputs, activation=0, gated=0, **layer.attributes)


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
    x = _activations(rows, layer.inner, 0)
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


@pytest.mark.parametrize("bits", [4, 7, 8])
def test_zeros_give_the_bias(bits: int) -> None:
    layer = Layer(64, 20, bits, 32, 0)
    assert np.array_equal(
        layer.run(np.zeros((3, 64), np.float32), biased=True), np.tile(layer.bias, (3, 1))
    )


@pytest.mark.parametrize(("name", "gated"), [(n, g) for n in ACTIVATIONS for g in (0, 1)])
def test_activations_and_gates(name: str, gated: int) -> None:
    import torch

    layer = Layer(64, 96, 4, 32, 1, form="offsets" if gated else "")
    x = _activations(9, 64, 2, 8.0)
    functions = {
        "none": lambda t: t,
        "gelu": torch.nn.functional.gelu,
        "gelu_tanh": lambda t: torch.nn.functional.gelu(t, approximate="tanh"),
        "silu": torch.nn.functional.silu,
        "relu2": lambda t: torch.nn.functional.relu(t) ** 2,
    }
    plain = torch.from_numpy(layer.run(x, biased=True)).double()
    gate, let = (plain[:, :48], plain[:, 48:]) if gated else (plain, torch.ones(()))
    wanted = (functions[name](gate) * let).numpy()
    found = layer.run(x, biased=True, activation=ACTIVATIONS[name], gated=gated)
    size = np.maximum(1.0, np.abs(let.numpy())) * max(1.0, float(functions[name](gate).abs().max()))
    assert found.shape == wanted.shape
    assert (np.abs(found - wanted) <= ACTIVATED * size).all()


def test_more_axes_and_no_rows() -> None:
    layer = Layer(64, 20, 8, 64, 0)
    x = _activations(6, 64, 0).reshape(2, 3, 64)
    assert np.array_equal(layer.run(x).reshape(6, 20), layer.run(x.reshape(6, 64)))
    assert layer.run(x[:0]).shape == (0, 3, 20)


@pytest.mark.parametrize("rows", [1, 130])
def test_threads_change_nothing(rows: int) -> None:
    layer = Layer(256, 400, 4, 64, 0)
    x = _activations(rows, 256, 0)
    one, three = (
        run(
            DOMAIN,
            SPEC.name,
            [x, layer.tiles],
            threads=threads,
            **layer.attributes,
            activation=0,
            gated=0,
        )[0]
        for threads in (1, 3)
    )
    assert np.array_equal(one, three)


@pytest.mark.parametrize("defined", OTHER_PROCESSORS)
@pytest.mark.parametrize(("bits", "form"), KINDS)
def test_kernels_of_all_processors_give_the_same_bits(bits: int, form: str, defined: str) -> None:
    # 72 columns end in half a tile that has no other beside it, 96 are 48 with a gate.
    for columns, how in ((72, {"activation": 3, "gated": 0}), (96, {"activation": 2, "gated": 1})):
        layer = Layer(384, columns, bits, 64, 3, form=form)
        for rows in (1, 2, 3, 4, 5, 6, 7, 8, 13, 111):
            x = _activations(rows, layer.inner, rows)
            inputs, more = [x, layer.tiles, layer.bias], how | layer.attributes
            (found,) = run(DOMAIN, SPEC.name, inputs, defines=[defined], **more)
            assert np.array_equal(found, layer.run(x, biased=True, **how)), (rows, how)


@pytest.mark.parametrize("defined", OTHER_PROCESSORS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_of_all_processors_give_the_same_bits(name: str, defined: str) -> None:
    layer = Layer(64, 40, 7, 8, 1)
    x = _activations(9, layer.inner, 2, 30.0)
    x[3] = np.nan
    how = {"activation": ACTIVATIONS[name], "gated": 0}
    inputs, more = [x, layer.tiles, None], how | layer.attributes
    (found,) = run(DOMAIN, SPEC.name, inputs, defines=[defined], **more)
    assert np.array_equal(found, layer.run(x, **how), equal_nan=True)
    assert np.isnan(found[3]).all()


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
    ("scale", "words"), [(70.0, "kernels: builtin take it"), (np.nan, "is no number")]
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
    x = _activations(4, 64, 0)
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
        layer.run(_activations(2, 64, 0), **change)


def test_refuses_inputs_that_do_not_fit() -> None:
    layer = Layer(64, 20, 4, 32, 0)
    with pytest.raises(Exception, match="last dimension"):
        layer.run(_activations(2, 32, 0))
    layer.bias = layer.bias[:-1]
    with pytest.raises(Exception, match="bias has another length"):
        layer.run(_activations(2, 64, 0), biased=True)
    with pytest.raises(Exception, match="outside the table"):
        run(DOMAIN, EMBEDDING.name, [layer.tiles, np.array([20])], **layer.attributes)
