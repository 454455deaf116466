"""lower-native-norm."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.lowering.ort.native_norm import LowerNativeNorm
from lepton_passes.lowering.ort.skip_norm import LowerSkipNorm
from lepton_passes.origin import mark_file
from tests.passes.support import Arrays, check, load, ops, random, reasons
from tests.plugins.cpu_library import needs_library

pytestmark = needs_library

FEEDS = {"x": random(2, 3, 24), "skip": random(2, 3, 24, seed=1)}
WEIGHTS = {"g": random(24, seed=2), "c": random(24, seed=3)}


def _model(body: str, weights: Arrays = WEIGHTS, outputs: str = "y") -> ir.Model:
    text = f"main (float[b, s, 24] x, float[b, s, 24] skip) => ({outputs}) {{ {body} }}"
    used = {name: array for name, array in weights.items() if f" {name}" in body}
    return load(text, used)


@pytest.mark.parametrize(
    ("body", "rms"),
    [
        ("z = Add (x, skip) y = RMSNormalization <axis = -1, epsilon = 0.01> (x, g)", 1),
        ("y = LayerNormalization <axis = -1> (x, g, c)", 0),
        ("y = LayerNormalization (x, g)", 0),
    ],
)
def test_norms(body: str, rms: int) -> None:
    model = _model(body)
    assert check(LowerNativeNorm(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == ["Normalization"]
    assert model.graph[0].attributes["rms"].as_int() == rms


def test_a_weight_that_stands_in_the_graph() -> None:
    """As of what is divided by its length, which no checkpoint has a weight for."""
    row = ", ".join(["0.25"] * 24)
    model = _model(f"w = Constant <value = float[24] {{{row}}}> () y = RMSNormalization (x, w)")
    assert check(LowerNativeNorm(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == ["Normalization"]


@pytest.mark.parametrize(
    "norm", ["RMSNormalization (s, g)", "LayerNormalization <epsilon = 0.001> (s, g, c)"]
)
@pytest.mark.parametrize("summed", [False, True])
def test_residual_sums(norm: str, summed: bool) -> None:
    outputs, more = ("y, z", " z = Neg (s)") if summed else ("y", "")
    model = _model(f"s = Add (x, skip) y = {norm}{more}", outputs=outputs)
    LowerSkipNorm()(model)
    assert check(LowerNativeNorm(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == ["SkipNormalization", *(["Neg"] if summed else [])]
    assert len(model.graph[0].outputs) == 1 + summed


@pytest.mark.parametrize(
    ("body", "weights", "reason"),
    [
        (
            "y = RMSNormalization <axis = 1> (x, g)",
            {"g": random(3, 24)},
            "the norm runs over other axes than the last",
        ),
        (
            "y = RMSNormalization <stash_type = 10> (x, g)",
            WEIGHTS,
            "the norm does not compute in fp32",
        ),
        (
            "y = RMSNormalization (x, skip)",
            WEIGHTS,
            "the weight of the norm is not a constant vector",
        ),
        (
            "y = com.microsoft.SkipLayerNormalization (x, skip, g, c, c)",
            WEIGHTS,
            "the sum has a bias",
        ),
    ],
)
def test_refuses(body: str, weights: Arrays, reason: str) -> None:
    model = _model(body, weights)
    norm = LowerNativeNorm()
    norm(model)
    assert norm.fired == 0
    assert reasons(norm) == [reason]


def test_refuses_a_norm_that_gives_its_mean() -> None:
    model = _model("y, m = LayerNormalization (x, g, c)", outputs="y, m")
    norm = LowerNativeNorm()
    norm(model)
    assert reasons(norm) == ["the norm gives its mean"]


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({"g": random(1), "c": random(24)}, "the weight of the norm is not a constant vector"),
        *(
            (
                {"g": random(24), "c": random(*shape)},
                "the bias of the norm is no constant vector as long as its weight",
            )
            for shape in ((1,), (3, 24))
        ),
    ],
)
def test_refuses_weights_that_are_broadcast(weights: Arrays, reason: str) -> None:
    model = _model("y = LayerNormalization (x, g, c)", weights)
    assert reasons(check(LowerNativeNorm(), model, FEEDS, CLOSE)) == [reason]


@pytest.mark.parametrize(
    ("norm", "name", "dtype"),
    [
        ("LayerNormalization (x, g, c)", "float16", np.float16),
        ("LayerNormalization (x, g, c)", "double", np.float64),
        ("com.microsoft.SkipLayerNormalization (x, skip, g, c)", "float16", np.float16),
    ],
)
def test_refuses_other_types_than_fp32(norm: str, name: str, dtype: type) -> None:
    text = f"main ({name}[b, s, 24] x, {name}[b, s, 24] skip) => (y) {{ y = {norm} }}"
    model = load(text, {key: array.astype(dtype) for key, array in WEIGHTS.items()})
    feeds = {key: array.astype(dtype) for key, array in FEEDS.items()}
    assert reasons(check(LowerNativeNorm(), model, feeds, CLOSE)) == ["the kernel reads fp32 alone"]


SMALL = {name: array * 1e-2 for name, array in FEEDS.items()}


@pytest.mark.parametrize(
    "op",
    ["SkipLayerNormalization (x, skip, g, c)", "SkipSimplifiedLayerNormalization (x, skip, g)"],
)
def test_an_epsilon_that_a_file_leaves_out_is_onnxruntimes(op: str) -> None:
    weights = {name: WEIGHTS[name] for name in WEIGHTS if f", {name}" in op}
    model = _model(f"y = com.microsoft.{op}", weights)
    mark_file(model)
    assert check(LowerNativeNorm(), model, SMALL, CLOSE).fired == 1
    assert ops(model) == ["SkipNormalization"]


SIZES = "the two sides of the sum differ in size, or it is unknown"


@pytest.mark.parametrize(
    ("made", "more", "reason"),
    [
        ("y = {} (x, row, g, c)", "", SIZES),
        ("h = Tan (x) y = {} (h, skip, g, c)", "", SIZES),  # whose size nothing says
        ("y, mean = {} (x, skip, g, c)", ", mean", "the norm gives its mean"),
        ("y = {} <scale = 2.0> (x, skip, g, c)", "", "our kernel has no scale"),
    ],
)
def test_refuses_of_a_file_what_our_kernel_does_not_do(made: str, more: str, reason: str) -> None:
    body = made.format("com.microsoft.SkipLayerNormalization")
    text = f"""main (float[b, s, 24] x, float[b, s, 24] skip, float[s, 24] row)
        => (y{more}) {{ {body} }}"""
    model, norm = load(text, WEIGHTS), LowerNativeNorm()
    mark_file(model)
    norm(model)
    assert (norm.fired, reasons(norm)) == (0, [reason])
