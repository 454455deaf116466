"""Mean squares of what layers read, when somebody asks."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_compile.pipeline.energies import Energies
from tests.passes.quant.rounding import NAMES, model
from tests.passes.support import random

FEEDS = [{"x": random(1, 5, 64, seed=1)}, {"x": random(1, 3, 64, seed=2, scale=3.0)}]


def test_the_sample_runs_once_and_only_when_asked_for() -> None:
    asked: list[int] = []

    def feeds() -> list[dict[str, np.ndarray]]:
        asked.append(1)
        return FEEDS

    graph = model()
    found = Energies(graph, feeds)
    graph.graph.outputs.clear()  # passes go on with their own graph
    assert sorted(found) == sorted(NAMES)
    assert len(found) == len(NAMES)
    assert asked == []
    rows = np.concatenate([feed["x"].reshape(-1, 64) for feed in FEEDS])
    np.testing.assert_allclose(found[NAMES[0]], np.square(rows).mean(axis=0), rtol=1e-5)
    assert found[NAMES[1]].shape == found[NAMES[2]].shape == (64,)
    found.collect()
    assert asked == [1]


def test_a_weight_that_nobody_reads_has_none() -> None:
    found = Energies(model(), lambda: FEEDS)
    assert "head" not in found
    assert found.get("head") is None
    with pytest.raises(KeyError):
        found["head"]
