"""lower-trt-static-cache: fixed capacity, lengths instead of a mask, last logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lepton_passes.lowering.trt.static_cache import LowerTrtStaticCache
from tests.passes.lowering.trt.decoder import (
    CAPACITY,
    exported,
    lowered,
    neutral_logits,
    stepped_logits,
)

IDS = np.random.default_rng(3).integers(3, 60, (2, 22))


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_prefill_and_decode_past_the_window(name: str, tmp_path: Path) -> None:
    made = exported(name, tmp_path)
    expected = neutral_logits(made, IDS)
    model, _ = lowered(made.model, "plugin")
    inputs = {v.name: v for v in model.graph.inputs}
    assert list(inputs)[:2] == ["input_ids", "past_lengths"]
    assert "attention_mask" not in inputs
    assert "logits_to_keep" not in inputs
    assert inputs["past_key_values.0.key"].shape[2] == CAPACITY
    found = stepped_logits(model, made, IDS, prefill=9)
    np.testing.assert_allclose(found, expected[:, 8:], atol=2e-4 * np.ptp(expected))


def test_counts_layers(tmp_path: Path) -> None:
    made = exported("llama", tmp_path)
    done = LowerTrtStaticCache(CAPACITY)
    done(made.model)
    assert done.fired == len(made.caches)
    left = {n.op_type for f in made.model.functions.values() for n in f if n.domain == "ai.lepton"}
    assert "CachedAttention" not in left


@pytest.mark.parametrize(("capacity", "reason"), [(None, "is unknown"), (4096, "positions")])
def test_refuses_and_changes_nothing(capacity: int | None, reason: str, tmp_path: Path) -> None:
    made = exported("llama", tmp_path)
    before = [v.name for v in made.model.graph.inputs]
    done = LowerTrtStaticCache(capacity)
    done(made.model)
    assert done.fired == 0
    assert any(reason in r.reason for r in done.refusals)
    assert [v.name for v in made.model.graph.inputs] == before
