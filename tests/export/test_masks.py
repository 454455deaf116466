"""The rule of a mask is told from numbers, within the positions that an engine sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import masking_utils
from transformers.models.bart import modeling_bart as bart

from lepton_compile.errors import ExportError
from lepton_compile.export.capture.masks import MaskRule, chunks_of_rows, settle

from .harness import FP32, compiled, empty_cache, relative_error, run, save
from .zoo import MORE_ENCODERS
from .zoo_places import in_chunks

CHUNK = 12
CAUSAL = masking_utils.causal_mask_function


@pytest.mark.parametrize(
    ("function", "rule"),
    [
        (CAUSAL, MaskRule(causal=True, window=-1)),
        (masking_utils.bidirectional_mask_function, MaskRule(causal=False, window=-1)),
        (masking_utils.sliding_window_causal_mask_function(7), MaskRule(causal=True, window=7)),
        (
            masking_utils.sliding_window_bidirectional_mask_function(7),
            MaskRule(causal=False, window=8),
        ),
    ],
)
def test_rules_that_hold_everywhere(function: Callable[..., Any], rule: MaskRule) -> None:
    assert settle(function, 64) == rule
    assert settle(function, 1 << 18) == rule


def _chunked(size: int) -> Callable[..., Any]:
    with chunks_of_rows():
        return masking_utils.chunked_causal_mask_function(size, torch.tensor([9]))


@pytest.mark.parametrize(("size", "positions"), [(64, 64), (65, 64), (1 << 17, 1 << 17)])
def test_within_one_chunk_attention_is_causal(size: int, positions: int) -> None:
    assert settle(_chunked(size), positions) == MaskRule(causal=True, window=-1)


@pytest.mark.parametrize(("size", "positions"), [(63, 64), (4, 64), (1 << 18, (1 << 18) + 1)])
def test_more_chunks_than_one_are_refused_with_what_would_go(size: int, positions: int) -> None:
    with pytest.raises(ExportError, match=f"causal within {size} positions") as caught:
        settle(_chunked(size), positions)
    assert caught.value.hint == f"build it for shapes.sequence: 1..{size}"


@pytest.mark.parametrize(
    "function",
    [
        lambda b, h, q, k: (q + k) % 2 == 0,
        lambda b, h, q, k: (k <= q) & (k != 0),  # causal, but for the first key
        lambda b, h, q, k: (k <= q) | (k < 3),  # a prefix that everyone sees
    ],
)
def test_other_rules_are_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(ExportError, match="neither causal, bidirectional nor a sliding window"):
        settle(function, 64)


def test_chunks_are_the_models_own_again() -> None:
    before = masking_utils.chunked_overlay
    with chunks_of_rows():
        assert masking_utils.chunked_overlay is not before
    assert masking_utils.chunked_overlay is before


@pytest.mark.parametrize("length", [CHUNK, CHUNK + 1])
def test_an_engine_within_a_chunk_has_captured_attention(length: int, tmp_path: Path) -> None:
    """The same model, by the length that it is built for; one row begins with padding."""
    model = save(in_chunks(CHUNK), "text-generation", tmp_path)
    exported, session = compiled(tmp_path, "text-generation", length=length)
    assert exported.how == ("stamped" if length == CHUNK else "plain")
    assert any("causal within" in note for note in exported.notes) == (length > CHUNK)
    ids = np.random.default_rng(0).integers(3, 99, (2, length))
    mask = np.ones_like(ids)
    mask[1, :2] = 0
    given = {"input_ids": ids, "attention_mask": mask}
    with torch.no_grad():
        named = {name: torch.from_numpy(value) for name, value in given.items()}
        positions = torch.from_numpy(np.maximum(mask.cumsum(1) - 1, 0))
        expected = model(**named, position_ids=positions, use_cache=False).logits.numpy()
    found = run(session, {**given, **empty_cache(session, 2)})["logits"]
    real = mask.astype(bool)
    assert relative_error(found[real], expected[real]) <= FP32


def test_a_mask_without_padding_keeps_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BART gives its writing half none while it is traced, and its attention, here, says nothing of
    an order: as code does that is run with masks alone."""
    made = bart.BartAttention.__init__

    def unordered(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **{**kwargs, "is_causal": False})

    monkeypatch.setattr(bart.BartAttention, "__init__", unordered)
    model: Any = save(MORE_ENCODERS["bart"][0], "feature-extraction", tmp_path)
    model.set_attn_implementation("eager")
    exported, session = compiled(tmp_path, "feature-extraction")
    assert exported.how == "stamped"
    ids = np.random.default_rng(0).integers(3, 99, (2, 12))
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    with torch.no_grad():
        named = {name: torch.from_numpy(value) for name, value in given.items()}
        expected = model(**named).last_hidden_state.numpy()
    found = run(session, given)["last_hidden_state"]
    assert relative_error(found, expected) <= FP32
