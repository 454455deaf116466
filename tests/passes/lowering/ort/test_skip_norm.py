"""lower-skip-norm."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.lowering.ort.skip_norm import LowerSkipNorm
from tests.passes.support import check, load, ops, random, reasons

FEEDS = {"x": random(2, 3, 16), "skip": random(2, 3, 16, seed=1)}
WEIGHTS = {"g": random(16, seed=2), "b": random(16, seed=3)}
NORMS = {
    "RMSNormalization": "RMSNormalization <axis = -1, epsilon = 0.001, stash_type = 1> (s, g)",
    "LayerNormalization": "LayerNormalization <axis = -1, epsilon = 0.001> (s, g, b)",
}
KERNELS = {
    "RMSNormalization": "SkipSimplifiedLayerNormalization",
    "LayerNormalization": "SkipLayerNormalization",
}


def _weights(norm: str) -> dict[str, np.ndarray]:
    return WEIGHTS if "(s, g, b)" in norm else {"g": WEIGHTS["g"]}


def _graph(norm: str, outputs: str = "y", skip: str = "float[n, s, 16]", more: str = "") -> str:
    return f"""main (float[n, s, 16] x, {skip} skip) => ({outputs}) {{
      s = Add (x, skip)
      {more}
      y = {norm}
    }}"""


@pytest.mark.parametrize("kind", NORMS)
def test_one_kernel(kind: str) -> None:
    model = load(_graph(NORMS[kind]), _weights(NORMS[kind]))
    assert check(LowerSkipNorm(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == [KERNELS[kind]]
    assert len(model.graph[0].outputs) == 1


@pytest.mark.parametrize("kind", NORMS)
def test_the_sum_is_an_output_where_it_is_read(kind: str) -> None:
    model = load(_graph(NORMS[kind], "y, z", more="z = Relu (s)"), _weights(NORMS[kind]))
    assert check(LowerSkipNorm(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == [KERNELS[kind], "Relu"]


def _behind_a_layer(norm: str) -> str:
    return f"""main (float[n, s, 16] x, float[n, s, 16] skip) => (y) {{
      t = Transpose <perm = [1, 0]> (w)
      m = MatMul (x, t)
      a = Add (m, c)
      s = Add (a, skip)
      y = {norm}
    }}"""


def test_takes_the_bias_of_an_fp32_layer() -> None:
    text = _behind_a_layer(NORMS["LayerNormalization"])
    model = load(text, {**WEIGHTS, "w": random(16, 16, seed=4), "c": random(16, seed=5)})
    assert check(LowerSkipNorm(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == ["Transpose", "MatMul", "SkipLayerNormalization"]


@pytest.mark.parametrize(
    ("norm", "skip", "reason"),
    [
        (
            NORMS["RMSNormalization"],
            "float[1, s, 16]",
            "the two sides of the sum differ in size",
        ),
        (NORMS["RMSNormalization"], "float[n, s, k]", "the two sides of the sum differ in size"),
        (
            "RMSNormalization <axis = -2> (s, g)",
            "float[n, s, 16]",
            "the norm runs over other axes than the last",
        ),
        (
            "RMSNormalization <stash_type = 10> (s, g)",
            "float[n, s, 16]",
            "the norm does not compute in fp32",
        ),
    ],
)
def test_refuses(norm: str, skip: str, reason: str) -> None:
    gamma = random(3, 16) if "-2" in norm else WEIGHTS["g"]
    model = load(_graph(norm, skip=skip), {"g": gamma})
    done = LowerSkipNorm()
    done(model)
    assert (reasons(done), done.fired) == ([reason], 0)


def test_refuses_unknown_sizes() -> None:
    model = load(
        f"""main (float[n, s, 16] x, int64[3] shape) => (y) {{
          skip = Expand (x, shape)
          s = Add (x, skip)
          y = {NORMS["RMSNormalization"]}
        }}""",
        {"g": WEIGHTS["g"]},
    )
    done = check(LowerSkipNorm(), model, {"x": FEEDS["x"], "shape": np.array([2, 3, 16])}, CLOSE)
    assert reasons(done) == ["the sizes of the sum are unknown"]


def test_leaves_a_sum_with_a_constant() -> None:
    model = load(
        f"main (float[n, s, 16] x) => (y) {{ s = Add (x, c) y = {NORMS['RMSNormalization']} }}",
        {"g": WEIGHTS["g"], "c": random(16)},
    )
    done = check(LowerSkipNorm(), model, {"x": FEEDS["x"]}, CLOSE)
    assert (done.fired, done.refusals) == (0, [])


@pytest.mark.parametrize(
    ("norm", "weights", "reason"),
    [
        (
            NORMS["RMSNormalization"],
            {"g": random(1)},
            "the weight of the norm is not a constant vector",
        ),
        *(
            (
                NORMS["LayerNormalization"],
                {"g": random(16), "b": random(*shape)},
                "the bias of the norm is no constant vector as long as its weight",
            )
            for shape in ((1,), (3, 16))
        ),
    ],
)
def test_refuses_weights_that_are_broadcast(
    norm: str, weights: dict[str, np.ndarray], reason: str
) -> None:
    done = check(LowerSkipNorm(), load(_graph(norm), weights), FEEDS, CLOSE)
    assert (reasons(done), done.fired) == ([reason], 0)


def test_refuses_fp64() -> None:
    text = _graph(NORMS["LayerNormalization"]).replace("float", "double")
    model = load(text, {name: array.astype(np.float64) for name, array in WEIGHTS.items()})
    feeds = {name: array.astype(np.float64) for name, array in FEEDS.items()}
    done = check(LowerSkipNorm(), model, feeds, CLOSE)
    assert reasons(done) == ["the kernel has no fp64, and one type for all it reads"]


@pytest.mark.parametrize(("rows", "bias"), [(16, 1), (1, 16)])
def test_leaves_a_bias_that_is_broadcast(rows: int, bias: int) -> None:
    text = _behind_a_layer(NORMS["RMSNormalization"])
    weights = {"g": WEIGHTS["g"], "w": random(rows, 16, seed=4), "c": random(bias, seed=5)}
    model = load(text, weights)
    check(LowerSkipNorm(), model, FEEDS, CLOSE)
    assert ops(model)[:3] == ["Transpose", "MatMul", "Add"]


def test_refuses_a_norm_that_gives_its_mean() -> None:
    """As a file may: the sum would be made twice."""
    model = load(
        """main (float[n, 8] x, float[n, 8] z) => (y, mean) {
      s = Add (x, z)
      y, mean = LayerNormalization (s, w)
    }""",
        {"w": random(8)},
    )
    norm = LowerSkipNorm()
    norm(model)
    assert (norm.fired, reasons(norm)) == (0, ["the norm gives its mean"])
