"""Positions as an input of a decoder: what a caller gives is used, else the mask counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lepton_compile as lc
from lepton_compile.errors import ExportError

from .harness import FP32, compiled, padded, relative_error, save
from .zoo import DECODERS, ENCODERS

# A rotary embedding, two tables of it with windows, and a table that is learned.
NAMES = ["llama", "gemma3", "gpt2"]
STEPS = np.array([1, 1, 4, 1, 7, 1, 1, 2, 1, 1, 3, 1])  # not one apart, which rotary angles see


def _places(mask: np.ndarray) -> np.ndarray:
    return np.cumsum(np.broadcast_to(STEPS, mask.shape) * mask, axis=1)


def _reference(model: torch.nn.Module, **given: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        out = model(**{k: torch.from_numpy(v) for k, v in given.items()}, use_cache=False)
    found: np.ndarray = out.logits.numpy()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_given_positions_are_used(name: str, tmp_path: Path) -> None:
    model = save(DECODERS[name][0], "text-generation", tmp_path / "model")
    artifact = lc.build(
        model=str(tmp_path / "model"), output=tmp_path / "out", position_ids=True, verify=False
    )
    (entry,) = [e for e in artifact.manifest.inputs if e["name"] == "position_ids"]
    assert entry == {
        "name": "position_ids",
        "dtype": "int64",
        "shape": ["batch", "sequence"],
        "optional": False,
    }
    with lc.load(artifact.path) as engine:
        for side in ("none", "right", "left"):
            ids, mask = padded(2, len(STEPS), side)
            feeds = {"input_ids": ids, "attention_mask": mask}
            counted = np.maximum(mask.cumsum(1) - 1, 0)
            for places, given in ((_places(mask), {"position_ids": _places(mask)}), (counted, {})):
                expected = _reference(model, **feeds, position_ids=places)
                found = engine.run({**feeds, **given}, ["logits"])["logits"]
                real = mask.astype(bool)
                assert relative_error(found[real], expected[real]) <= FP32
        _check_generated(model, engine)


def _check_generated(model: Any, engine: Any) -> None:
    """Rows of different lengths get their own positions, token by token."""
    prompts = [[5, 17, 3, 42, 8], [7, 61]]
    rows = engine.generate(prompts, max_new_tokens=8)
    for prompt, row in zip(prompts, rows, strict=True):
        ids = torch.tensor([prompt])
        whole = model.generate(ids, max_new_tokens=8, do_sample=False)[0, len(prompt) :].tolist()
        assert list(row.tokens) == [token for token in whole if token != 2]


def test_a_rotary_embedding_of_given_positions_stays_outside(tmp_path: Path) -> None:
    save(DECODERS["llama"][0], "text-generation", tmp_path)
    exported, session = compiled(tmp_path, "text-generation", positions=True)
    assert exported.how == "stamped"
    assert "position_ids" in [i.name for i in session.get_inputs()]
    assert "Positions" not in {node.op_type for node in exported.model.graph}


@pytest.mark.parametrize(("name", "task"), [("bloom", "text-generation"), ("bert", "fill-mask")])
def test_models_without_positions_to_give(name: str, task: str, tmp_path: Path) -> None:
    config = (DECODERS if task == "text-generation" else ENCODERS)[name][0]
    save(config, task, tmp_path)
    with pytest.raises(ExportError, match="positions") as caught:
        compiled(tmp_path, task, positions=True)
    assert caught.value.where == "position_ids"
