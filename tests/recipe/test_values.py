"""The small notations: ranges, shares, sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lepton_compile.errors import RecipeError
from lepton_compile.recipe import load_recipe
from lepton_compile.recipe.values import bytes_of, fraction_of, range_of


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1..64", (1, 64)),
        (" 2 .. 3 ", (2, 3)),
        ("7", (7, 7)),
        (7, (7, 7)),
        ([1, 2], (1, 2)),
        ((4, 4), (4, 4)),
    ],
)
def test_ranges(value: Any, expected: tuple[int, int]) -> None:
    assert range_of(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "64..1",
        "0..4",
        0,
        -1,
        True,
        1.5,
        "1-4",
        "1..",
        [1],
        [1, 2, 3],
        [1, True],
        None,
        {},
        "1..99999999999",
        "1.." + "9" * 5000,
    ],
)
def test_no_ranges(value: Any) -> None:
    with pytest.raises(ValueError, match="range"):
        range_of(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(("+6%", 0.06), ("6%", 0.06), ("0.5 %", 0.005), (0.06, 0.06), (0, 0.0), (1, 1.0)),
        *(("6e-2", 0.06), ("1.5E-3", 0.0015), ("0e0", 0.0), ("150%", 1.5)),
    ],
)
def test_shares(value: Any, expected: float) -> None:
    assert fraction_of(value) == pytest.approx(expected)


@pytest.mark.parametrize(
    "value",
    [
        "six",
        "-6%",
        -0.1,
        True,
        None,
        float("inf"),
        float("nan"),
        "0.06",
        10**320,
        "9" * 400 + "%",
        "9e999",
        "-1e-3",
        1.0001,
        90,
        "2e0",
    ],
)
def test_no_shares(value: Any) -> None:
    with pytest.raises(ValueError, match="share"):
        fraction_of(value)


def test_a_similarity_of_hundreds_of_digits_is_none() -> None:
    with pytest.raises(RecipeError, match="takes a number"):
        load_recipe({"model": "x", "gates": {"cosine": 10**320}})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("3GB", 3 * 10**9),
        ("2GiB", 2 << 30),
        ("500MB", 5 * 10**8),
        ("1.5 G", 15 * 10**8),
        (42, 42),
        ("7B", 7),
        ("42", 42),
    ],
)
def test_sizes(value: Any, expected: int) -> None:
    assert bytes_of(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "GB",
        "-1GB",
        "0GB",
        0,
        -5,
        True,
        1.5,
        "3 gb",
        None,
        1 << 61,
        "9" * 400 + "GB",
        "9" * 5000,
        "²",
    ],
)
def test_no_sizes(value: Any) -> None:
    with pytest.raises(ValueError, match="memory"):
        bytes_of(value)


def test_numbers_of_numpy_are_pythons_own() -> None:
    """A sweep in Python has them."""
    given = {
        "model": "./m",
        "quantize": {"bits": np.int64(4), "group": np.arange(65)[64]},
        "shapes": {"batch": (np.int32(1), np.int32(8)), "sequence": [1, np.uint16(64)]},
        "gates": {"cosine": np.float32(0.5)},
    }
    plain = {
        "model": "./m",
        "quantize": {"bits": 4, "group": 64},
        "shapes": {"batch": (1, 8), "sequence": [1, 64]},
        "gates": {"cosine": 0.5},
    }
    assert load_recipe(given).model_dump() == load_recipe(plain).model_dump()
    with pytest.raises(RecipeError, match="'shapes' takes a mapping"):
        load_recipe({"model": "./m", "shapes": np.ones(2)})
