"""fold-constants."""

from __future__ import annotations

from lepton_passes.cleanup.fold_constants import LIMIT, FoldConstants
from lepton_passes.contract import SAME
from tests.passes.support import check, load, ops, random, reasons


def test_folds_chains_of_constants() -> None:
    model = load(
        """main (float[a, b] x) => (y) {
             one = Constant <value_ints = [4]> ()
             zero = Constant <value_ints = [0]> ()
             four = Squeeze (one, zero)
             wide = Unsqueeze (four, zero)
             shape = Concat <axis = 0> (wide, one)
             y = Expand (x, shape)
           }"""
    )
    assert check(FoldConstants(), model, {"x": random(1, 4)}, SAME).fired == 3
    assert ops(model) == ["Expand"]


def test_leaves_what_depends_on_an_input() -> None:
    model = load("main (float[a, b] x) => (y) { y = Shape (x) }")
    assert check(FoldConstants(), model, {"x": random(1, 4)}, SAME).fired == 0


def test_refuses_a_large_result() -> None:
    model = load(
        f"""main (float[a] x) => (y) {{
              zero = Constant <value_int = 0> ()
              one = Constant <value_int = 1> ()
              end = Constant <value_int = {LIMIT + 1}> ()
              range = Range (zero, end, one)
              floats = Cast <to = 1> (range)
              y = Add (x, floats)
            }}"""
    )
    done = check(FoldConstants(), model, {"x": random(1)}, SAME)
    assert reasons(done) == [f"the result has {LIMIT + 1} elements"]
