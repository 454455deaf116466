"""Edges that a launch can reach: ragged rows, windows shorter than a step, full caches.

Under Triton's interpreter, which runs the blocks of a grid one after the other: it shows reads and
writes out of place (the caches start as not-a-number behind each row), not races. Those are ruled
out by hand: a block of the decode kernel reads no new row that it has not written itself, and what
two blocks both write is the same bits.
"""

from __future__ import annotations

import random

import pytest

from lepton_plugins.attention.variant import Variant
from tests.plugins.attention.cases import Case, assert_matches
from tests.plugins.attention.interpreted import Interpreter

pytest.importorskip("triton")
pytest.importorskip("torch")


@pytest.mark.parametrize(("window", "splits"), [(-1, 3), (1, 3), (4, 1), (17, 2), (-1, 9)])
def test_decode_of_many_row_tiles_with_windows_shorter_than_the_step(
    interpreter: Interpreter, window: int, splits: int
) -> None:
    """Four row tiles, of which each starts at other keys and writes other new rows."""
    variant = Variant("bfloat16", 4, 1, 32, window=window)
    case = Case(variant, sequence=16, capacity=64, past=(0, 15, 48), splits=splits)
    assert_matches(case, interpreter.run(case))


@pytest.mark.parametrize(
    ("sequence", "cache"),
    [(1, "bfloat16"), (5, "int8"), (16, "bfloat16"), (17, "bfloat16"), (40, "int8")],
)
def test_new_rows_behind_the_capacity_are_dropped(
    interpreter: Interpreter, sequence: int, cache: str
) -> None:
    """Of a batch in which only some rows are full; what is dropped lands in nobody's row."""
    variant = Variant("bfloat16", 4, 2, 32, cache_dtype=cache, key_scale=0.05, value_scale=0.04)
    case = Case(variant, sequence, capacity=48, past=(0, 47, 33))
    assert_matches(case, interpreter.run(case))


@pytest.mark.parametrize("seed", range(8))
def test_any_mixture(interpreter: Interpreter, seed: int) -> None:
    """Drawn at random: heads, width, window, softcap, sinks, dtypes, lengths."""
    draw = random.Random(seed)
    group, kv_heads = draw.choice([1, 2, 3, 8]), draw.choice([1, 2])
    dtype = draw.choice(["float16", "bfloat16"])
    variant = Variant(
        dtype,
        group * kv_heads,
        kv_heads,
        draw.choice([32, 48, 80]),
        cache_dtype=draw.choice([dtype, "int8", "float8_e4m3fn"]),
        softcap=draw.choice([0.0, 20.0]),
        window=draw.choice([-1, 1, 9, 33]),
        sinks=draw.random() < 0.5,
        key_scale=0.04,
        value_scale=0.03,
    )
    capacity = draw.choice([16, 50, 64])
    sequence = draw.randint(1, min(capacity, 24))
    past = tuple(draw.randint(0, capacity - sequence) for _ in range(draw.randint(1, 3)))
    case = Case(variant, sequence, capacity, past, splits=draw.randint(1, 7), seed=seed)
    assert_matches(case, interpreter.run(case))
