"""Attention over a cache, whatever lies between: legal-trt finds the cache and what is missing."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from tests.passes.lowering.trt.test_legal_trt import refused
from tests.passes.support import LAYER, load

FOUR = "float16[b, 4, s, 64]"
CAUSAL = "is_causal counts from the upper left, which is wrong behind a cache"


def _causal(before: str) -> ir.Model:
    return load(f"""main ({FOUR} q, {FOUR} k, {FOUR} v, float16[b, 4, p, 64] past) => (y) {{
        {before} y = Attention <is_causal = 1> (q, whole, v) }}""")


GROWN = "grown = Concat <axis = 2> (past, k) "


@pytest.mark.parametrize(
    "before",
    [
        "whole = Concat <axis = 2> (past, k)",
        f"{GROWN} whole = Identity (grown)",
        f"{GROWN} wide = Cast <to = 1> (grown) whole = Cast <to = 10> (wide)",
        f"{GROWN} t = Transpose <perm = [0, 2, 1, 3]> (grown) "
        "whole = Transpose <perm = [0, 2, 1, 3]> (t)",
        "two = Constant <value_ints = [2]> () zero = Constant <value_ints = [0]> () "
        "whole = Slice (past, zero, two, two)",
    ],
)
def test_causal_attention_behind_a_cache(before: str) -> None:
    assert refused(_causal(before)) == [CAUSAL]


@pytest.mark.parametrize(
    "before",
    [
        "half = Identity (k) whole = Concat <axis = -1> (half, half)",
        "axis = Constant <value_ints = [3]> () zero = Constant <value_ints = [0]> () "
        "some = Constant <value_ints = [32]> () whole = Slice (k, zero, some, axis)",
    ],
)
def test_causal_attention_whose_keys_are_cut_across(before: str) -> None:
    assert refused(_causal(before)) == []


# The cache is written where the keys are read, in another layer function, or in the main graph.
LAYERS = {
    "a layer that writes it": (
        "[l0] y, present = ai.lepton.layer.block (q, k, past, at)",
        """block (q, k, past, at) => (y, present) {
          present = TensorScatter <axis = -2> (past, k, at) READS }""",
    ),
    "a layer that is given it": (
        """present = TensorScatter <axis = -2> (past, k, at)
          [l0] y = ai.lepton.layer.block (q, present)""",
        "block (q, present) => (y) { READS }",
    ),
    "the main graph behind a layer": (
        """[l0] present = ai.lepton.layer.block (k, past, at)
          READS""",
        """block (k, past, at) => (present) {
          present = TensorScatter <axis = -2> (past, k, at) }""",
    ),
}


def _behind(place: str, reads: str, more: str = "") -> ir.Model:
    main, function = (text.replace("READS", reads) for text in LAYERS[place])
    extra = f", {more}" if more else ""
    return load(f"""main ({FOUR} q, {FOUR} k, float16[b, 4, 16, 64] past, int64[b] at{extra}) =>
        (y, present) {{ {main} }}
        {LAYER} {function}""")


FUSED = "y = trt.TRT_Attention <causal_kind = {}> (q, present, present{})"


@pytest.mark.parametrize("place", LAYERS)
@pytest.mark.parametrize(
    ("reads", "reason"),
    [
        ("y = Attention <is_causal = 1> (q, present, present)", CAUSAL),
        (
            "y = Attention (q, present, present)",
            "no mask keeps it from rows of the cache that are not filled",
        ),
        (
            "same = Identity (present) y = trt.TRT_Attention (q, same, same)",
            "neither mask nor kv_lengths keeps it from rows of the cache that are not filled",
        ),
        (
            FUSED.format('"upper_left"', ""),
            "upper_left counts from the first key, which is wrong behind a cache",
        ),
        (
            FUSED.format('"lower_right"', ""),
            "lower_right counts from the end of the cache, filled or not, without kv_lengths",
        ),
    ],
)
def test_attention_over_a_cache_of_fixed_length(place: str, reads: str, reason: str) -> None:
    assert refused(_behind(place, reads)) == [reason]


@pytest.mark.parametrize(
    ("reads", "more"),
    [
        (FUSED.format('"lower_right"', ', "", "", n'), "int32[b] n"),
        ("y = trt.TRT_Attention (q, present, present, m)", "float16[b, 1, s, 16] m"),
        ("y = Attention (q, present, present, m)", "float16[b, 1, s, 16] m"),
        (
            """two = Constant <value_ints = [2]> () zero = Constant <value_ints = [0]> ()
            filled = Slice (present, zero, n, two)
            y = trt.TRT_Attention <causal_kind = "lower_right"> (q, filled, filled)""",
            "int64[1] n",
        ),
    ],
)
def test_attention_over_the_filled_part_of_a_cache(reads: str, more: str) -> None:
    assert refused(_behind("the main graph behind a layer", reads, more)) == []
