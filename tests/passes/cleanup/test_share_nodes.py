"""share-nodes."""

from __future__ import annotations

import numpy as np

from lepton_passes.cleanup.share_nodes import SMALL, ShareNodes
from lepton_passes.contract import SAME
from tests.passes.support import check, load, ops, random

FEEDS = {"x": random(2, 3)}


def test_computes_equal_nodes_once() -> None:
    model = load(
        """main (float[a, b] x) => (y) {
             r = Relu (x)
             s = Relu (x)
             t = Cast <to = 11> (x)
             u = Cast <to = 10> (x)
             v = Cast <to = 1> (t)
             w = Cast <to = 1> (u)
             p = Add (r, s)
             q = Add (v, w)
             y = Add (p, q)
           }"""
    )
    assert check(ShareNodes(), model, FEEDS, SAME).fired == 1
    assert ops(model) == ["Relu", "Cast", "Cast", "Cast", "Cast", "Add", "Add", "Add"]


def test_shares_small_weights_by_content_and_large_ones_by_object() -> None:
    text = "main (float[a, b] x) => (y) { p = Add (x, small) q = Add (p, same) y = Add (q, big) }"
    big = np.zeros((SMALL + 1, 1, 1), np.float32)
    weights = {"small": random(3), "same": random(3), "big": big}
    model = load(text, weights)
    assert check(ShareNodes(), model, FEEDS, SAME).fired == 1
    assert sorted(model.graph.initializers) == ["big", "small"]


def test_keeps_names_of_outputs() -> None:
    model = load("main (float[a, b] x) => (y, z) { y = Relu (x) z = Relu (x) }")
    assert check(ShareNodes(), model, FEEDS, SAME).fired == 0
