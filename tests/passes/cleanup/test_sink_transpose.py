"""sink-transpose."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_passes.cleanup.sink_transpose import SinkTranspose
from lepton_passes.contract import CLOSE, SAME
from tests.passes.support import check, load, ops, random, reasons

FEEDS = {"x": random(2, 3, 4, 8)}


def _between(*nodes: str) -> str:
    """x turned, the nodes (each from ``h``), and turned back."""
    body = "".join(f"h{i + 1} = {node.replace('h', f'h{i}', 1)}\n" for i, node in enumerate(nodes))
    return f"""main (float[b, s, 4, 8] x) => (float[b, s, 4, 8] y) {{
      h0 = Transpose <perm = [0, 2, 1, 3]> (x)
      {body}
      t = Transpose <perm = [0, 2, 1, 3]> (h{len(nodes)})
      y = Relu (t)
    }}"""


def test_two_transposes_cancel() -> None:
    model = load(_between())
    assert check(SinkTranspose(), model, FEEDS, SAME).fired == 1
    assert ops(model) == ["Relu"]


@pytest.mark.parametrize("norm", ["RMSNormalization", "LayerNormalization"])
def test_moves_past_a_norm(norm: str) -> None:
    model = load(_between(f"{norm} <axis = -1> (h, g)"), {"g": random(8, seed=1)})
    assert check(SinkTranspose(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == [norm, "Relu"]


def test_the_weight_of_a_norm_may_be_an_input() -> None:
    text = _between("RMSNormalization <axis = -1> (h, g)").replace("x)", "x, float[8] g)", 1)
    assert check(SinkTranspose(), load(text), {**FEEDS, "g": random(8)}, CLOSE).fired == 1


def test_moves_past_a_rotary_embedding() -> None:
    angles = random(2, 3, 4, seed=2)
    model = load(
        _between("RotaryEmbedding (h, cos, sin)"), {"cos": np.cos(angles), "sin": np.sin(angles)}
    )
    assert check(SinkTranspose(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == ["Reshape", "RotaryEmbedding", "Reshape", "Relu"]


def test_moves_past_a_split_of_the_last_axis() -> None:
    model = load(
        """main (float[b, s, 4, 8] x) => (y, z) {
             h = Transpose <perm = [0, 2, 1, 3]> (x)
             p, q = Split <axis = 3, num_outputs = 2> (h)
             y = Transpose <perm = [0, 2, 1, 3]> (p)
             t = Transpose <perm = [0, 2, 1, 3]> (q)
             z = Relu (t)
           }"""
    )
    assert check(SinkTranspose(), model, FEEDS, SAME).fired == 2
    assert ops(model) == ["Split", "Relu"]


def test_merges_what_does_not_cancel() -> None:
    model = load(
        """main (float[b, s, 4, 8] x) => (y) {
             h = Transpose <perm = [0, 2, 1, 3]> (x)
             y = Transpose <perm = [0, 1, 3, 2]> (h)
           }"""
    )
    assert check(SinkTranspose(), model, FEEDS, SAME).fired == 1
    assert ops(model) == ["Transpose"]


@pytest.mark.parametrize(
    ("node", "weight", "reason"),
    [
        (
            "LayerNormalization <axis = -2> (h, g)",
            random(3, 8),
            "the norm does not run over the last axis alone",
        ),
        (
            "RMSNormalization <axis = -1> (h, g)",
            random(3, 8),
            "the weight of the norm has more than one axis",
        ),
    ],
)
def test_refuses_norms(node: str, weight: np.ndarray, reason: str) -> None:
    model = load(_between(node), {"g": weight})
    done = SinkTranspose()
    done(model)
    assert (reasons(done), done.fired) == ([reason], 0)


def test_refuses_unknown_heads() -> None:
    model = load(
        """main (float[b, s, h, d] x, float[b, s, k] c, float[b, s, k] n) => (y) {
             t = Transpose <perm = [0, 2, 1, 3]> (x)
             y = RotaryEmbedding (t, c, n)
           }"""
    )
    angles = random(2, 3, 4)
    done = check(SinkTranspose(), model, {**FEEDS, "c": np.cos(angles), "n": np.sin(angles)}, SAME)
    assert reasons(done) == ["the number of heads is unknown"]
