"""lower-trt-cached-attention: each form equals the neutral graph, and is chosen by the layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lepton_passes.lowering.trt.cached_attention import LowerTrtCachedAttention
from lepton_passes.lowering.trt.forms import attention_forms
from tests.passes.lowering.trt.decoder import exported, lowered, neutral_logits, stepped_logits

IDS = np.random.default_rng(5).integers(3, 60, (2, 22))


@pytest.mark.parametrize(
    ("name", "form", "forms"),
    [
        ("llama", "auto", {"native": 3}),
        ("llama", "native", {"native": 3}),
        ("llama", "mask", {"mask": 3}),
        ("llama", "plugin", {"plugin": 3}),
        ("gemma3", "auto", {"native": 1, "mask": 2}),
        ("gemma3", "mask", {"mask": 3}),
        ("gemma2", "auto", {"plugin": 3}),
    ],
)
def test_forms(name: str, form: str, forms: dict[str, int], tmp_path: Path) -> None:
    made = exported(name, tmp_path)
    expected = neutral_logits(made, IDS)
    model, done = lowered(made.model, form)
    assert not done.refusals
    assert attention_forms(model) == forms
    found = stepped_logits(model, made, IDS, prefill=9)
    np.testing.assert_allclose(found, expected[:, 8:], atol=2e-4 * np.ptp(expected))


@pytest.mark.parametrize(
    ("name", "form", "reason"),
    [
        ("gemma3", "native", "a window"),
        ("gemma3", "slice", "a window"),
        ("gemma2", "mask", "plugin"),
    ],
)
def test_what_a_form_cannot_say(name: str, form: str, reason: str, tmp_path: Path) -> None:
    _, done = lowered(exported(name, tmp_path).model, form)
    assert any(reason in r.reason for r in done.refusals)


def test_an_unknown_form() -> None:
    with pytest.raises(ValueError, match="is no form of attention"):
        LowerTrtCachedAttention("paged")
