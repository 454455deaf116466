"""An op of another domain is none of the standard ones, whatever it is called."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_passes.cleanup.merge_reshape import MergeReshape
from lepton_passes.cleanup.sink_transpose import SinkTranspose
from lepton_passes.cleanup.split_packed import SplitPacked
from lepton_passes.contract import SAME, LeptonPass
from lepton_passes.fusion.gelu import FuseGelu
from lepton_passes.lowering.ort.linear import LowerLinear
from lepton_passes.lowering.ort.silu import LowerSilu
from lepton_passes.lowering.ort.skip_norm import LowerSkipNorm
from tests.passes.support import check, load, random

FEEDS = {"x": random(8, 8)}
# What a model's own op does, by its name and inputs, and where it stands.
GRAPHS: dict[type[LeptonPass], tuple[str, str]] = {
    SplitPacked: (
        "Slice (x, a, b, c) => (y) { y = Neg (x) }",
        """zero = Constant <value_ints = [0]> () four = Constant <value_ints = [4]> ()
           eight = Constant <value_ints = [8]> () last = Constant <value_ints = [-1]> ()
           p = my.dom.Slice (x, zero, four, last) q = my.dom.Slice (x, four, eight, last)
           y = Add (p, q)""",
    ),
    MergeReshape: (
        "Reshape (x, s) => (y) { y = Neg (x) }",
        "s = Constant <value_ints = [0, 0]> () h = my.dom.Reshape (x, s) y = Relu (h)",
    ),
    FuseGelu: (
        "Erf (x) => (y) { y = Tanh (x) }",
        """root = Constant <value_float = 1.4142135> () one = Constant <value_float = 1.0> ()
           half = Constant <value_float = 0.5> () p = Div (x, root) e = my.dom.Erf (p)
           f = Add (one, e) h = Mul (x, f) y = Mul (h, half)""",
    ),
    LowerSilu: ("Mul (x, z) => (y) { y = Add (x, z) }", "s = Sigmoid (x) y = my.dom.Mul (x, s)"),
    LowerSkipNorm: (
        "LayerNormalization (x, z) => (y) { y = Mul (x, z) }",
        "s = Add (x, x) y = my.dom.LayerNormalization (s, g)",
    ),
    LowerLinear: (
        "MatMul (x, z) => (y) { y = Add (x, z) }",
        "t = Transpose <perm = [1, 0]> (w) y = my.dom.MatMul (x, t)",
    ),
}


@pytest.mark.parametrize("kind", GRAPHS)
def test_functions_with_the_names_of_standard_ops(kind: type[LeptonPass]) -> None:
    function, body = GRAPHS[kind]
    known = {"w": random(8, 8, seed=1), "g": random(8)}
    weights = {name: array for name, array in known.items() if f"{name})" in body}
    text = f"""main (float[8, 8] x) => (y) {{ {body} }}
               <domain: "my.dom", opset_import: ["" : 24]> {function}"""
    model = load(text, weights)
    model.graph.opset_imports["my.dom"] = 1
    assert check(kind(), model, FEEDS, SAME).fired == 0


def test_the_rotary_embedding_of_onnxruntime_has_inputs_of_its_own() -> None:
    model = load(
        """main (float[b, s, 2, 8] x, int64[b, s] places) => (y) {
             t = Transpose <perm = [0, 2, 1, 3]> (x)
             y = com.microsoft.RotaryEmbedding (t, places, cos, sin)
           }""",
        {"cos": random(16, 4), "sin": random(16, 4, seed=1)},
    )
    feeds = {"x": random(1, 3, 2, 8), "places": np.array([[0, 1, 2]])}
    assert check(SinkTranspose(), model, feeds, SAME).fired == 0
