"""Weights in a scratch file."""

from __future__ import annotations

from pathlib import Path

from lepton_compile.pipeline.scratch import ScratchWeights
from tests.passes.support import load, random


def test_a_weight_is_written_once_however_many_graphs_read_it(tmp_path: Path) -> None:
    """Each pass of a build is checked: a copy for each would fill the disk."""
    graph = load("main (float[b, 40] x) => (y) { y = MatMul (x, w) }", {"w": random(40, 64)})
    weight = graph.graph.initializers["w"].const_value
    scratch = ScratchWeights(tmp_path / "w.bin")
    first = scratch.externalized(graph)
    assert scratch.externalized(graph.clone()) == first
    assert (tmp_path / "w.bin").stat().st_size == 40 * 64 * 4 > len(first)
    assert graph.graph.initializers["w"].const_value is weight, "the graph is as before"
    scratch.close()
