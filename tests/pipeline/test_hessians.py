"""Sums of products of what layers read, under a budget."""

from __future__ import annotations

from weakref import ref

import numpy as np

from lepton_compile.pipeline.calibrate import inputs_of
from lepton_compile.pipeline.hessians import Hessians
from tests.passes.quant.rounding import NAMES, model
from tests.passes.support import random

FEEDS = [{"x": random(1, 5, 64, seed=1)}, {"x": random(1, 3, 64, seed=2, scale=3.0)}]


def test_products_of_all_texts_are_summed() -> None:
    found = Hessians(model(), lambda: FEEDS)
    assert sorted(found) == sorted(NAMES)
    x = np.concatenate([feed["x"].reshape(-1, 64) for feed in FEEDS])
    np.testing.assert_allclose(found[NAMES[0]], x.T @ x, rtol=1e-4, atol=1e-3)
    assert found[NAMES[0]] is found[NAMES[1]]
    assert "head" not in found


def test_the_sample_runs_once_when_all_fit_and_again_when_they_do_not() -> None:
    runs: list[str] = []
    graph = model()

    def progress(what: str, _done: int, _total: int) -> None:
        runs.extend([what] if what == "calibrated" else [])

    wide = Hessians(graph, lambda: FEEDS, progress=progress)
    assert runs == []
    whole = {name: wide[name].copy() for name in wide}
    assert len(runs) == 1
    narrow = Hessians(graph, lambda: FEEDS, budget=1, progress=progress)
    for name in narrow:
        np.testing.assert_array_equal(narrow[name], whole[name])
    assert len(runs) == 1 + len(inputs_of(graph))


def test_the_copy_is_not_the_graph_that_passes_change() -> None:
    graph = model()
    found = Hessians(graph, lambda: FEEDS)
    graph.graph.outputs.clear()
    assert found[NAMES[0]].shape == (64, 64)


def test_a_matrix_is_let_go_with_the_last_weight_that_asks() -> None:
    found = Hessians(model(), lambda: FEEDS)
    first = ref(found[NAMES[0]])
    assert first() is not None, "the gate reads the same input"
    second = ref(found[NAMES[1]])
    assert second() is None
    assert first() is None
