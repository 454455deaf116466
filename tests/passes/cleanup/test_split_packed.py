"""split-packed."""

from __future__ import annotations

import pytest

from lepton_passes.cleanup.split_packed import SplitPacked
from lepton_passes.contract import SAME
from tests.passes.support import check, load, ops, random, reasons

FEEDS = {"x": random(2, 3, 12)}


def _slices(first: tuple[int, int], second: tuple[int, int], step: int = 1) -> str:
    return f"""main (float[b, s, 12] x) => (y) {{
      a0 = Constant <value_ints = [{first[0]}]> ()
      a1 = Constant <value_ints = [{first[1]}]> ()
      b0 = Constant <value_ints = [{second[0]}]> ()
      b1 = Constant <value_ints = [{second[1]}]> ()
      axis = Constant <value_ints = [2]> ()
      step = Constant <value_ints = [{step}]> ()
      p = Slice (x, a0, a1, axis, step)
      q = Slice (x, b0, b1, axis, step)
      y = Concat <axis = 2> (q, p)
    }}"""


def test_slices_become_a_split() -> None:
    model = load(_slices((0, 8), (8, 9223372036854775807)))
    assert check(SplitPacked(), model, FEEDS, SAME).fired == 1
    assert ops(model) == ["Split", "Concat"]


@pytest.mark.parametrize("second", [(9, 12), (7, 12), (8, 11)])
def test_refuses_gaps_and_overlaps(second: tuple[int, int]) -> None:
    done = check(SplitPacked(), load(_slices((0, 8), second)), FEEDS, SAME)
    assert reasons(done) == ["the slices leave gaps or overlap"]


def test_leaves_slices_with_steps() -> None:
    model = load(_slices((0, 8), (8, 12), step=2))
    assert check(SplitPacked(), model, FEEDS, SAME).fired == 0


STACKED = """main (float[b, s, 12] x) => (y) {{
  shape = Constant <value_ints = [0, 0, 3, 2, 2]> ()
  axis = Constant <value_ints = [-3]> ()
  r = Reshape (x, shape)
  p, q, t = Split <axis = -3, num_outputs = 3> (r)
  p1 = Squeeze (p, axis)
  q1 = {second}
  t1 = Squeeze (t, axis)
  y = Concat <axis = -1> (p1, q1, t1)
}}"""


def test_stacked_pieces_are_cut_from_the_last_axis() -> None:
    model = load(STACKED.format(second="Squeeze (q, axis)"))
    assert check(SplitPacked(), model, FEEDS, SAME).fired == 1
    assert ops(model) == ["Split", "Reshape", "Reshape", "Reshape", "Concat"]


def test_refuses_a_piece_that_keeps_its_axis() -> None:
    text = STACKED.format(second="ReduceSum <keepdims = 0> (q, axis)")
    assert reasons(check(SplitPacked(), load(text), FEEDS, SAME)) == [
        "a piece keeps its axis of one"
    ]


@pytest.mark.parametrize(("shape", "fired"), [("-1, 2, 3, 2, 2", 0), ("0, 6, 3, 2, 2", 1)])
def test_pieces_are_cut_where_the_first_axes_stay(shape: str, fired: int) -> None:
    text = STACKED.format(second="Squeeze (q, axis)").replace("0, 0, 3, 2, 2", shape)
    model = load(text.replace("float[b, s, 12]", "float[b, 6, 12]"))
    done = check(SplitPacked(), model, {"x": random(2, 6, 12)}, SAME)
    assert done.fired == fired
    refused = ["the Reshape in front does not keep the first two axes"]
    assert reasons(done) == ([] if fired else refused)


def test_refuses_to_squeeze_other_axes_too() -> None:
    text = STACKED.format(second="Squeeze (q, axis)").replace("[-3]", "[-3, 0]")
    done = check(SplitPacked(), load(text), {"x": random(1, 3, 12)}, SAME)
    assert reasons(done) == ["a piece keeps its axis of one"]
