"""Ranges of keys and values are those of what the neutral graph puts into its caches."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from lepton_compile.pipeline.cache_ranges import cache_ranges
from tests.passes.lowering.trt.decoder import neutral
from tests.passes.support import ops, run

FEEDS = [[7, 8, 9, 10, 11], [20, 21, 22]]


def feed(ids: list[int]) -> dict[str, np.ndarray]:
    return {
        "input_ids": np.array([ids]),
        "attention_mask": np.ones((1, len(ids)), np.int64),
        "logits_to_keep": np.array(1),
    }


def test_ranges_are_those_of_the_presents() -> None:
    model, steps = neutral(), list[tuple[Any, ...]]()
    before = ops(model), ops(model, "block")
    ranges = cache_ranges(model, [feed(ids) for ids in FEEDS], lambda *s: steps.append(s))
    assert (ops(model), ops(model, "block")) == before
    names = [o.name or "" for o in model.graph.outputs]
    most = dict.fromkeys(names, 0.0)
    for ids in FEEDS:
        found = run(model, {**feed(ids), **_empty(model)})
        for name, array in zip(names, found, strict=True):
            most[name] = max(most[name], float(np.abs(array).max()))
    presents = {n.replace("present", "past_key_values") for n in names if n != "logits"}
    assert set(ranges) == presents
    for name, seen in ranges.items():
        assert np.isclose(seen.most, most[name.replace("past_key_values", "present")], rtol=1e-5)
        assert seen.rows == sum(map(len, FEEDS))
    assert [step[1] for step in steps] == [0, 1]


def test_a_graph_without_a_cache_has_none() -> None:
    model = neutral()
    for body in (f for f in model.functions.values() if f.name == "block"):
        for node in [n for n in body if n.op_type == "CachedAttention"]:
            node.op_type = "Other"
    assert cache_ranges(model, [feed(FEEDS[0])]) == {}


def _empty(model: ir.Model) -> dict[str, np.ndarray]:
    pasts = [v for v in model.graph.inputs if (v.name or "").startswith("past_key_values.")]
    shapes = {v.name or "": tuple(v.shape or ()) for v in pasts}
    return {
        name: np.zeros((1, int(shape[1]), 0, int(shape[3])), np.float32)  # type: ignore[call-overload]
        for name, shape in shapes.items()
    }
