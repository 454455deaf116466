"""What follows a layer's products, number by number: weights of zero leave the bias alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lepton_plugins.linear.spec import ACTIVATIONS, SPEC, TILE
from tests.plugins.cpu_library import DOMAIN, OTHER_PROCESSORS, Array, needs_library, run

pytestmark = needs_library

# Largest error, over the larger of 1 and the argument: of erf 3.2e-7, of tanh 3.4e-7, times half of
# the argument; of the sigmoid two units in the last place.
ERROR = {"none": 0.0, "gelu": 2e-7, "gelu_tanh": 2e-7, "silu": 2e-7, "relu2": 1e-7}
TANH = math.sqrt(2 / math.pi)
WANTED = {
    "none": lambda x: x,
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "gelu_tanh": lambda x: x * 0.5 * (1 + np.tanh(TANH * (x + 0.044715 * x**3))),
    "silu": lambda x: x * 0.5 * (1 + np.tanh(x / 2)),
    "relu2": lambda x: np.maximum(x, 0) ** 2,
}
INNER = 64
ENDS = (3.8 * math.sqrt(2), 20.0, 100.0, 1e4)  # beyond erf's last; of large numbers


def _activated(name: str, x: Array, **options: object) -> Array:
    """activation(x) of one number for each column, a multiple of 16."""
    tiles = np.zeros((x.size // TILE, INNER // 64 * (32 + 16 * 64)), np.uint8)
    kind = {"K": INNER, "N": x.size, "bits": 8, "block_size": 64, "offsets": 0, "floats": 0}
    act = {"activation": ACTIVATIONS[name], "gated": 0}
    row = np.zeros((1, INNER), np.float32)
    return run(DOMAIN, SPEC.name, [row, tiles, x], **kind, **act, **options)[0][0]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_within_its_error(name: str) -> None:
    near = np.linspace(-12, 12, 120_000)
    small = np.logspace(-30, 0, 5_000)
    ends = [sign * end for end in ENDS for sign in (1, -1)]
    x = np.concatenate([near, small, -small, ends, np.zeros(8)]).astype(np.float32)
    exact = WANTED[name](x.astype(np.float64))
    size = np.maximum(1.0, np.abs(exact) if name == "relu2" else np.abs(x))
    error = np.abs(_activated(name, x) - exact) / size
    assert error.max() <= ERROR[name], x[error.argmax()]


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh"])
def test_large_numbers_are_left_alone_or_vanish(name: str) -> None:
    x = np.array([10.0, 1e3, 1e6, 3e12, -10.0, -1e3, -1e6, -3e12] * 2, np.float32)
    assert np.array_equal(_activated(name, x), np.maximum(x, 0))


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("define", OTHER_PROCESSORS)
def test_all_processors_give_the_same_bits(name: str, define: str) -> None:
    x = np.linspace(-12, 12, 4096).astype(np.float32)
    x[::97] = np.nan
    ours = _activated(name, x)
    assert np.array_equal(ours, _activated(name, x, defines=[define]), equal_nan=True)
    assert name == "relu2" or np.isnan(ours[::97]).all()
