"""The kernels against the reference, over what a launch can be: a grid, and cases at random.

Under Triton's interpreter, with small tiles, so that a few dozen keys are many blocks. What only a
device can show (fused multiply-adds, races, speed) is elsewhere: ``test_on_gpu.py``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lepton_plugins.attention.source import constants
from lepton_plugins.attention.spec import DTYPES
from lepton_plugins.attention.tiles import Tiles
from lepton_plugins.attention.variant import Variant
from tests.plugins.attention.cases import SMALL_TILES, Case, assert_matches, expected
from tests.plugins.attention.interpreted import Interpreter

pytest.importorskip("triton")
pytest.importorskip("torch")

# Long prefills in few steps: the interpreter takes the same time for a block of any size.
WIDE_TILES = SMALL_TILES | {
    "append": Tiles(64, 1, 4, 1),
    "prefill": Tiles(64, 32, 4, 1),
    "decode": Tiles(16, 32, 4, 1),
    "combine": Tiles(1, 16, 4, 1),
}
FP8 = "float8_e4m3fn"


def variant(
    head_dim: int, group: int = 4, heads: int = 1, cache: str = "", **flags: object
) -> Variant:
    scales = {"key_scale": 0.04, "value_scale": 0.03} if cache else {}
    return Variant("bfloat16", group * heads, heads, head_dim, cache, **scales, **flags)


@pytest.mark.parametrize(
    ("of", "sequence", "past"),
    [
        (variant(64, 1), 150, (7,)),
        (variant(128, 4), 40, (33,)),
        (variant(256, 8), 17, (0, 50)),
        (variant(320, 4), 20, (12,)),
        (variant(512, 1), 70, (1,)),
        (variant(64, 4, window=9), 37, (40, 0)),
        (variant(64, 1, window=65), 150, (0,)),
        (variant(128, 1, window=1), 33, (31,)),
        (variant(64, 8, softcap=15.0, sinks=True), 18, (5,)),
        (variant(128, 4, cache="int8", window=33, sinks=True), 35, (3, 64)),
        (variant(320, 1, cache="int8"), 40, (9,)),
        (variant(256, 4, cache=FP8, softcap=30.0), 24, (0, 77)),
    ],
    ids=str,
)
def test_prefill_across_tiles(
    interpreter: Interpreter, of: Variant, sequence: int, past: tuple[int, ...]
) -> None:
    """Rows of several tiles, keys of several runs: cut by the window, whole, on the diagonal."""
    case = Case(of, sequence, capacity=max(past) + sequence + 3, past=past)
    assert_matches(case, interpreter.run(case, WIDE_TILES))


@pytest.mark.parametrize(
    ("of", "sequence", "past"),
    [
        (variant(64, 1, 2), 1, (0, 99)),
        (variant(128, 4), 1, (63, 64)),
        (variant(256, 8), 2, (100,)),
        (variant(320, 4), 3, (30,)),
        (variant(512, 8), 1, (77,)),
        (variant(64, 4, window=9), 7, (90, 2)),
        (variant(256, 4, window=32, softcap=15.0), 1, (96,)),
        (variant(64, 8, 2, sinks=True), 1, (40,)),
        (variant(128, 4, cache="int8", window=33, sinks=True), 2, (3, 64)),
        (variant(320, 1, cache="int8"), 1, (95,)),
        (variant(256, 4, cache=FP8, softcap=30.0), 1, (0, 77)),
    ],
    ids=str,
)
def test_decode_of_every_kind(
    interpreter: Interpreter, of: Variant, sequence: int, past: tuple[int, ...]
) -> None:
    case = Case(of, sequence, capacity=112, past=past)
    assert_matches(case, interpreter.run(case, WIDE_TILES))


@pytest.mark.parametrize("splits", [1, 2, 3, 5, 8, 17, 33])
def test_the_number_of_splits_changes_nothing(interpreter: Interpreter, splits: int) -> None:
    """Fewer than there are blocks of keys, as many, and more: some have nothing to do."""
    of = variant(64, 2, sinks=True, window=100)
    case = Case(of, sequence=2, capacity=128, past=(125, 0, 31), splits=splits)
    assert_matches(case, interpreter.run(case))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sequence", [1, 16, 17])
def test_both_dtypes_on_both_sides_of_the_border(
    interpreter: Interpreter, dtype: str, sequence: int
) -> None:
    """16 tokens are the most that take the decode path."""
    of = replace(variant(64, 1), dtype=dtype, cache_dtype=dtype)
    case = Case(of, sequence, capacity=40, past=(0, 23))
    assert_matches(case, interpreter.run(case, WIDE_TILES))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any call that a model could make, small."""
    dtype = draw(st.sampled_from(DTYPES))
    group, heads = draw(st.sampled_from([1, 3, 4, 8])), draw(st.integers(1, 2))
    of = Variant(
        dtype,
        group * heads,
        heads,
        draw(st.sampled_from([32, 48, 64, 80, 128])),
        draw(st.sampled_from([dtype, "int8", FP8])),
        softcap=draw(st.sampled_from([0.0, 20.0])),
        window=draw(st.one_of(st.just(-1), st.integers(1, 70))),
        sinks=draw(st.booleans()),
        key_scale=0.04,
        value_scale=0.03,
    )
    sequence = draw(st.integers(1, 40))
    capacity = sequence + draw(st.integers(0, 60))
    past = draw(st.lists(st.integers(0, capacity - sequence), min_size=1, max_size=2))
    return Case(
        of, sequence, capacity, tuple(past), draw(st.integers(1, 6)), draw(st.integers(0, 99))
    )


@settings(max_examples=15, derandomize=True)
@example(Case(variant(64, 1, window=3), 16, 48, (32, 0), splits=3))
@given(case=cases())
def test_any_call(interpreter: Interpreter, case: Case) -> None:
    assert_matches(case, interpreter.run(case, WIDE_TILES))


@pytest.mark.slow
@settings(max_examples=20)
@given(case=cases())
def test_many_calls(interpreter: Interpreter, case: Case) -> None:
    assert_matches(case, interpreter.run(case))


@pytest.mark.parametrize(
    ("operation", "left", "right", "found"),
    [
        ("add", 2**31 - 2, 1, 2**31 - 1),
        ("add", 2**31 - 1, 1, None),
        ("subtract", -(2**31) + 1, 1, -(2**31)),
        ("subtract", -(2**31), 1, None),
        ("multiply", 2**16, 2**14, 2**30),
        ("multiply", 2**16, -(2**16), None),
    ],
)
def test_integers_that_overflow_are_seen(
    interpreter: Interpreter, operation: str, left: int, right: int, found: int | None
) -> None:
    if found is None:
        with pytest.raises(Exception, match="int32 overflow detected"):
            interpreter.computed(operation, left, right)
    else:
        assert interpreter.computed(operation, left, right) == found


def test_a_wrong_result_is_seen() -> None:
    """The comparison itself: an output off by a hundredth, a cache off by a bit."""
    case = Case(variant(64), 3, 8, (2,))
    for name in ("output", "present_key"):
        found = expected(case)
        assert_matches(case, found)
        bits = found[name].view(np.uint16) if name == "present_key" else None
        if bits is None:
            found[name][0, 1, 5] += 0.05
        else:
            bits[0, 0, 1, 5] ^= 1
        with pytest.raises(AssertionError, match=r"off by|differs"):
            assert_matches(case, found)


@pytest.mark.parametrize("head_dim", range(32, 513, 16))
@pytest.mark.parametrize("key_scale", [1.0, 0.0371])
def test_a_masked_score_is_scaled_without_rounding(head_dim: int, key_scale: float) -> None:
    """A device multiplies and subtracts the row's maximum in one step, which the interpreter does
    not. Where the product is not exact, a row that has seen masked keys only gets the exponential
    of some 1e21."""
    from lepton_plugins.attention.blocks import MASKED_SCORE

    of = Variant("bfloat16", 1, 1, head_dim, "int8", key_scale=key_scale)
    scale = np.float32(constants("decode", of, SMALL_TILES["decode"])["SCORE_SCALE"])
    masked = np.float32(MASKED_SCORE.value)
    assert float(masked * scale) == float(masked) * float(scale)
