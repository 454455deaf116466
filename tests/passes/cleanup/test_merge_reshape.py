"""merge-reshape."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.body import Body
from lepton_passes.cleanup.merge_reshape import MergeReshape
from lepton_passes.contract import SAME
from lepton_passes.match import keeps_two
from tests.passes.support import check, load, ops, random, reasons, run

FEEDS = {"x": random(2, 3, 8)}


def _chain(first: list[int], second: list[int], between: str = "") -> str:
    return f"""main (float[b, s, 8] x) => (y) {{
      one = Constant <value_ints = {first}> ()
      two = Constant <value_ints = {second}> ()
      h = Reshape (x, one)
      {between}
      t = Reshape ({"n" if between else "h"}, two)
      y = Relu (t)
    }}"""


@pytest.mark.parametrize("second", [[0, 0, 8], [0, 0, -1]])
def test_there_and_back_is_nothing(second: list[int]) -> None:
    model = load(_chain([0, 0, 2, 4], second))
    assert check(MergeReshape(), model, FEEDS, SAME).fired == 2
    assert ops(model) == ["Relu"]


@pytest.mark.parametrize(
    ("first", "second"),
    [([0, 0, 2, 4], [0, 0, 4, 2]), ([0, 24], [0, 0]), ([0, 0, 4, 2], [0, 0, 2, 4])],
)
def test_two_become_one(first: list[int], second: list[int]) -> None:
    model = load(_chain(first, second))
    assert check(MergeReshape(), model, FEEDS, SAME).fired == 1
    assert ops(model) == ["Reshape", "Relu"]


def test_norm_of_a_single_head_needs_no_reshape() -> None:
    norm = "n = RMSNormalization <axis = -1> (h, g)"
    model = load(_chain([0, 0, 1, 8], [0, 0, 8], norm), {"g": random(8)})
    assert check(MergeReshape(), model, FEEDS, SAME).fired == 2
    assert ops(model) == ["RMSNormalization", "Relu"]


def test_norm_of_several_heads_keeps_them() -> None:
    norm = "n = RMSNormalization <axis = -1> (h, g)"
    model = load(_chain([0, 0, 2, 4], [0, 0, 8], norm), {"g": random(4)})
    assert check(MergeReshape(), model, FEEDS, SAME).fired == 0


def test_refuses_shapes_that_are_computed() -> None:
    model = load(
        """main (float[b, s, 8] x, int64[3] shape) => (y) {
             one = Constant <value_ints = [0, 0, 2, 4]> ()
             h = Reshape (x, one)
             y = Reshape (h, shape)
           }"""
    )
    done = check(MergeReshape(), model, {**FEEDS, "shape": np.array([2, 3, 8])}, SAME)
    assert reasons(done) == ["the shape is not constant"]


def test_refuses_to_copy_an_inferred_axis() -> None:
    done = check(MergeReshape(), load(_chain([-1, 8], [0, 4, 2])), FEEDS, SAME)
    assert reasons(done) == ["a copied axis is inferred by the Reshape in front"]


def test_a_sum_with_a_vector_is_as_wide_as_its_other_side() -> None:
    model = load(
        """main (float[b, s, 8] x) => (y) {
             all = Constant <value_ints = [-1]> ()
             h = Add (v, x)
             f = Reshape (h, all)
             y = Relu (f)
           }""",
        {"v": random(8)},
    )
    assert check(MergeReshape(), model, FEEDS, SAME).fired == 0


@pytest.mark.parametrize(("first", "fired"), [([-1, 1, 1, 8], 0), ([0, 3, 1, 8], 2)])
def test_a_norm_of_a_single_head_for_each_position(first: list[int], fired: int) -> None:
    norm = "n = RMSNormalization <axis = -1> (h, g)"
    text = _chain(first, [0, 0, 8], norm).replace("float[b, s, 8]", "float[b, 3, 8]")
    done = check(MergeReshape(), load(text, {"g": random(8)}), FEEDS, SAME)
    assert done.fired == fired
    refused = ["the Reshape in front does not keep the first two axes"]
    assert reasons(done) == ([] if fired else refused)


def test_a_zero_that_is_a_size_is_not_copied() -> None:
    model = load(_chain([3, 0], [0, 0]))
    model.graph[2].attributes.add(ir.AttrInt64("allowzero", 1))
    merge = MergeReshape()
    merge(model)
    (y,) = run(model, {"x": np.zeros((0, 3, 8), np.float32)})
    assert y.shape == (3, 0)
    why = "a zero of the Reshape in front is a size, not a copied axis"
    assert reasons(merge) == [why]


def test_a_norm_behind_sizes_of_zero_keeps_its_reshape() -> None:
    node = load(_chain([0, 0, 1, 8], [0, 0, 8])).graph[2]
    body = Body(load(_chain([0, 0, 1, 8], [0, 0, 8])))
    assert keeps_two(body, node)
    node.attributes.add(ir.AttrInt64("allowzero", 1))
    assert not keeps_two(body, node)
