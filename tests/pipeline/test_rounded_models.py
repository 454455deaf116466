"""Captured models with weights in 8 bits lose what PyTorch loses with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from lepton_passes.quant.weight_int8 import WeightInt8
from tests.export.harness import (
    FP32,
    compiled,
    empty_cache,
    padded,
    relative_error,
    run,
    save,
    session_of,
)
from tests.export.zoo import DECODERS

# By the softcap of the logits: the largest error of one, of their range. Logits of this Gemma 2
# reach 6.6 where nothing holds them back. A cap of 3, that of the zoo, takes half of their range
# and leaves those around zero as they are, so that the same error is twice as large a part. The
# check after weight-int8 allows 0.05 and refuses the zoo's model, for its ids come to 0.0515: no
# rounding is wrong there, and a cap that is wider than the logits, as Gemma's own, costs nothing.
COST = [
    ("llama", None, 0.011),
    ("gemma3", None, 0.016),
    ("gemma2", None, 0.021),
    ("gemma2", 30.0, 0.021),
    ("gemma2", 3.0, 0.046),
]


@pytest.mark.parametrize(("name", "softcap", "cost"), COST)
def test_weights_in_8_bits(name: str, softcap: float | None, cost: float, tmp_path: Path) -> None:
    def config() -> Any:
        made = DECODERS[name][0]()
        made.update({"final_logit_softcapping": softcap} if name == "gemma2" else {})
        return made

    reference = save(config, "text-generation", tmp_path)
    model = compiled(tmp_path, "text-generation")[0].model
    ids, _ = padded(8, 40, "none")
    before = _logits(model, ids)
    done = WeightInt8()
    done(model)
    after = _logits(model, ids)
    assert relative_error(after, before) == pytest.approx(cost, rel=0.1)
    rounded, parameters = _rounded(model), reference.state_dict()
    assert len(rounded) == done.fired == 22
    with torch.no_grad():
        for parameter, weight in rounded.items():
            parameters[parameter].copy_(torch.from_numpy(weight))
        expected = reference(torch.from_numpy(ids)).logits.numpy()
    assert relative_error(after, expected) <= FP32


def _logits(model: ir.Model, ids: np.ndarray) -> np.ndarray:
    session = session_of(model)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "logits_to_keep": np.array(0)}
    return run(session, feeds | empty_cache(session, len(ids)))["logits"]


def _rounded(model: ir.Model) -> dict[str, np.ndarray]:
    """What the graph multiplies with, by name in the checkpoint."""
    arrays = {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }
    names = [name.removesuffix("_q") for name in arrays if name.endswith("_q")]
    found = {}
    for name in names:
        q, scale = arrays[f"{name}_q"].astype(np.float32), arrays[f"{name}_scale"]
        found[name] = (q.reshape(*scale.shape, -1) * scale[..., None]).reshape(q.shape)
    return found
