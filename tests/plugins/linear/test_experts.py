"""Mixtures of experts with packed weights against linear layers and a sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from lepton_passes.lowering.ort.tiles import pack
from lepton_plugins.linear.reference import linear
from lepton_plugins.linear.spec import EXPERTS, FLOATS, TILE
from tests.plugins.cpu_library import DOMAIN, Array, needs_library, run

pytestmark = needs_library

# The second layer rounds what the first one made, so that the last bit of it may be another integer
# there.
CLOSE = {4: 5e-3, 8: 1e-5}
GATES = {
    0: lambda t: t,
    1: torch.nn.functional.gelu,
    2: lambda t: torch.nn.functional.gelu(t, approximate="tanh"),
    3: torch.nn.functional.silu,
    4: lambda t: torch.nn.functional.relu(t) ** 2,
}


class Mixture:
    """Random experts, packed; ``form`` gives offsets to their groups, or floats for integers."""

    def __init__(
        self,
        experts: int,
        width: int,
        inner: int,
        bits: int,
        group: int,
        *,
        gated: bool = True,
        form: str = "",
    ) -> None:
        self.experts, self.width, self.inner = experts, width, inner
        self.bits, self.group, self.gated, self.form = bits, group, gated, form
        self.gate_up = self._tiles((1 + gated) * inner, width, 1)
        self.down = self._tiles(width, inner, 2)

    def _tiles(self, rows: int, columns: int, seed: int) -> Array:
        random, low = np.random.default_rng(seed), -8 if self.bits == 4 else -127
        floats = self.form == "floats"
        levels = FLOATS if floats else range(low, -low)
        q = random.choice(levels, (self.experts * rows, columns)).astype(np.int8)
        scale = random.normal(0, 0.02, (len(q), columns // self.group)).astype(np.float32)
        offset = None
        if self.form == "offsets":
            offset = random.normal(0, 0.1, scale.shape).astype(np.float32)
        return pack(q, scale, self.bits, self.group, len(q) // TILE, offset, floats=floats)

    @property
    def forms(self) -> dict[str, bool]:
        """What the tiles have, as the reference asks for it."""
        return {self.form: True} if self.form else {}

    def run(
        self,
        x: Array,
        indices: Array,
        shares: Array,
        activation: int,
        biases: Sequence[Array | None] = (),
        **more: Any,
    ) -> Array:
        how = {
            "K": self.width,
            "N": self.inner,
            "experts": self.experts,
            "bits": self.bits,
            "block_size": self.group,
            "down_block_size": self.group,
            "activation": activation,
            "gated": int(self.gated),
            "offsets": int(self.form == "offsets"),
            "down_offsets": int(self.form == "offsets"),
            "floats": int(self.form == "floats"),
            "alpha": 1.0,
            "limit": 0.0,
            "beta": 0.0,
        } | more
        inputs = [x, indices, shares, self.gate_up, self.down, *biases]
        return run(DOMAIN, EXPERTS.name, inputs, **how)[0]

    def wanted(
        self,
        x: Array,
        indices: Array,
        shares: Array,
        activation: int,
        biases: Sequence[Array] = (),
        *,
        alpha: float = 1.0,
        limit: float = 0.0,
        beta: float = 0.0,
    ) -> Array:
        gate_ups, downs = (
            each.reshape(self.experts, -1, each.shape[1]) for each in (self.gate_up, self.down)
        )
        y = np.zeros(x.shape)
        for token, row in enumerate(x):
            for e, share in zip(indices[token], shares[token], strict=True):
                into, out = (each[e] for each in biases) if biases else (None, None)
                made = self._linear(row[None], gate_ups[e], into, self._projected)
                gate, up = np.split(made, 2, axis=1) if self.gated else (made, np.ones(()))
                if limit:
                    gate, up = np.minimum(gate, limit), np.clip(up, -limit, limit)
                opened = GATES[activation](torch.from_numpy(gate * alpha)).numpy() / alpha
                hidden = opened * (up + beta)
                y[token] += share * self._linear(hidden, downs[e], out, self.width)[0]
        return y

    def _linear(self, x: Array, tiles: Array, bias: Array | None, columns: int) -> Array:
        return linear(x, tiles, bias, columns, self.bits, self.group, **self.forms)[0]

    @property
    def _projected(self) -> int:
        return (1 + self.gated) * self.inner


def _tokens(count: int, chosen: int, mixture: Mixture) -> tuple[Array, Array, Array]:
    draw = np.random.default_rng(count)
    x = draw.standard_normal((count, mixture.width)).astype(np.float32)
    # The last expert is nobody's choice.
    indices = np.stack([draw.permutation(mixture.experts - 1)[:chosen] for _ in range(count)])
    return x, indices, draw.uniform(0.1, 1, indices.shape).astype(np.float32)


@pytest.mark.parametrize(
    ("activation", "gated"), [*((gate, True) for gate in sorted(GATES)), (4, False)]
)
@pytest.mark.parametrize("tokens", [1, 2, 41])
@pytest.mark.parametrize(("bits", "group"), [(4, 32), (4, 64), (8, 16), (8, 64)])
def test_against_the_reference(
    bits: int, group: int, tokens: int, activation: int, gated: bool
) -> None:
    mixture = Mixture(6, 128, 64, bits, group, gated=gated)
    given = _tokens(tokens, 3, mixture)
    found, wanted = mixture.run(*given, activation), mixture.wanted(*given, activation)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= CLOSE[bits] * np.abs(wanted).max()


@pytest.mark.parametrize("how", [{}, {"alpha": 1.702, "limit": 0.6, "beta": 1.0}, {"limit": 0.5}])
@pytest.mark.parametrize("tokens", [1, 41])
@pytest.mark.parametrize(("bits", "group"), [(4, 32), (8, 16)])
def test_biases_and_gates_of_several_parts(
    bits: int, group: int, tokens: int, how: dict[str, float]
) -> None:
    mixture = Mixture(6, 64, 32, bits, group)
    given = _tokens(tokens, 3, mixture)
    draw = np.random.default_rng(7)
    biases = (
        draw.standard_normal((6, 64)).astype(np.float32),
        draw.standard_normal((6, 64)).astype(np.float32),
    )
    found = mixture.run(*given, 3, biases, **how)
    wanted = mixture.wanted(*given, 3, biases, **how)
    assert np.abs(found - wanted).max() <= CLOSE[bits] * np.abs(wanted).max()
    assert np.abs(mixture.run(*given, 3) - found).max() > 0.02 * np.abs(wanted).max()


@pytest.mark.parametrize("tokens", [1, 41])
@pytest.mark.parametrize(
    ("bits", "group", "form"),
    [
        *((4, group, form) for group in (32, 64) for form in ("offsets", "floats")),
        (8, 16, "offsets"),
        (8, 64, "offsets"),
    ],
)
def test_offsets_and_floats_of_experts(bits: int, group: int, form: str, tokens: int) -> None:
    mixture = Mixture(6, 128, 64, bits, group, form=form)
    given = _tokens(tokens, 3, mixture)
    found, wanted = mixture.run(*given, 3), mixture.wanted(*given, 3)
    assert np.abs(found - wanted).max() <= CLOSE[bits] * np.abs(wanted).max()


def test_threads_and_company_change_nothing() -> None:
    """A token gets the same alone, and from any number of threads."""
    mixture = Mixture(5, 96, 64, 4, 32)
    x, indices, shares = _tokens(30, 2, mixture)
    whole = mixture.run(x, indices, shares, 2, threads=1)
    assert np.array_equal(whole, mixture.run(x, indices, shares, 2, threads=3))
    for i in (0, 7, 29):
        alone = mixture.run(x[i : i + 1], indices[i : i + 1], shares[i : i + 1], 2)
        assert np.array_equal(alone[0], whole[i])


def test_no_tokens() -> None:
    mixture = Mixture(3, 32, 32, 8, 32)
    none = np.zeros((0, 32), np.float32)
    choices, shares = np.zeros((0, 2), np.int64), np.zeros((0, 2), np.float32)
    assert mixture.run(none, choices, shares, 1).shape == (0, 32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"experts": 4}, "another size than the experts say"),
        ({"K": 40}, "multiples of 16"),
        ({"bits": 7}, "out of range"),
        ({"activation": 5}, "out of range"),
        ({"gated": 0}, "another size than the experts say"),
        ({"down_offsets": 1}, "another size than the experts say"),
        ({"down_offsets": 1, "floats": 1}, "floats are of 4 bits, without offsets"),
        ({"down_block_size": 24}, "a multiple of 32 for 4 bits"),
        ({"limit": 2.0}, "for a gate of SiLU"),
        ({"gated": 0, "activation": 3, "beta": 1.0}, "for a gate of SiLU"),
        ({"biases": (np.zeros((3, 64), np.float32), np.zeros(95, np.float32))}, "a bias has"),
    ],
)
def test_refuses_attributes(change: dict[str, Any], words: str) -> None:
    mixture = Mixture(3, 32, 32, 4, 32)
    x, indices, shares = _tokens(2, 2, mixture)
    activation = change.pop("activation", 1)
    with pytest.raises(Exception, match=words):
        mixture.run(x, indices, shares, activation, **change)


@pytest.mark.parametrize("choice", [-1, 3])
def test_refuses_choices_outside(choice: int) -> None:
    mixture = Mixture(3, 32, 32, 4, 32)
    x, indices, shares = _tokens(2, 2, mixture)
    indices[1, 1] = choice
    with pytest.raises(Exception, match="outside the experts"):
        mixture.run(x, indices, shares, 1)
