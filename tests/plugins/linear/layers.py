"""Random layers of packed weights, and what hypothesis draws of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from lepton_passes.lowering.ort.tiles import pack
from lepton_plugins.linear.reference import Unpacked, linear, unpacked
from lepton_plugins.linear.spec import FLOATS, SPEC, TILE, UNITS, block
from tests.plugins.cpu_library import DOMAIN, Array, run

__all__ = ["KINDS", "TOLERANCE", "Layer", "activations", "layers"]

TOLERANCE = SPEC.tolerance["float32"]
LEVELS = {4: (-8, 7), 7: (-63, 63), 8: (-127, 127)}
KINDS = [(4, ""), (4, "offsets"), (4, "floats"), (7, ""), (8, ""), (8, "offsets")]
"""Bits, and what else there is: offsets of groups, or floats in place of integers."""


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
        self._made = f"({inner}, {columns}, {bits}, {group}, {seed}, {extreme=}, {form=})"

    def __repr__(self) -> str:
        return type(self).__name__ + self._made

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

    def run(
        self, x: Array, *, biased: bool = False, order: Array | None = None, **more: Any
    ) -> Array:
        """What the operator gives; ``more`` are attributes of it, and options of ``run``."""
        how = self.attributes | {"activation": 0, "gated": 0} | more
        inputs = [x, self.tiles, self.bias if biased else None, order]
        return run(DOMAIN, SPEC.name, inputs, **how)[0]

    def check(self, x: Array, *, biased: bool = False) -> None:
        """Hold the operator against the reference."""
        found = self.run(x, biased=biased)
        bias = self.bias if biased else None
        shape = (self.columns, self.bits, self.group)
        wanted, size = linear(x, self.tiles, bias, *shape, **self.forms)
        assert found.shape == wanted.shape
        assert (np.abs(found - wanted) <= TOLERANCE.relative * size + 1e-42).all()


@st.composite
def layers(
    draw: st.DrawFn, *, gated: bool = False, kinds: Sequence[tuple[int, str]] = KINDS
) -> Layer:
    """Groups are one block of activations or several, and rows have few blocks or more than the 64
    whose scales are computed together."""
    bits, form = draw(st.sampled_from(kinds))
    units = st.integers(1, 6).map(lambda n: n * UNITS[bits])
    group = draw(units | st.sampled_from([64, 128]))
    blocks = group // block(bits, group)
    many = st.sampled_from([64, 65, 130]).map(lambda n: -(-n // blocks))
    inner = group * draw(st.integers(1, 9) | many)
    columns = 32 * draw(st.integers(1, 6)) if gated else draw(st.integers(1, 200))
    seed, extreme = draw(st.integers(0, 99)), draw(st.booleans())
    return Layer(inner, columns, bits, group, seed, extreme=extreme, form=form)


def activations(rows: int, inner: int, seed: int, scale: float = 1.0) -> Array:
    """Random rows, (rows, inner)."""
    x = np.random.default_rng(seed).standard_normal((rows, inner)) * scale
    return x.astype(np.float32)
