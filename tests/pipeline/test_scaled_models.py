"""Captured models compute the same when inputs of their layers are scaled, caches too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from lepton_compile.pipeline.energies import Energies
from lepton_compile.pipeline.plan import passes_for
from lepton_compile.pipeline.run import run
from lepton_compile.recipe import load_recipe
from lepton_passes.quant.scale_inputs import ScaleInputs
from tests.export.harness import compiled, empty_cache, padded, relative_error, save, session_of
from tests.export.harness import run as outputs
from tests.export.zoo import DECODERS

RECIPE = {"model": "m", "quantize": {"algorithm": "awq", "bits": 4}}
ADDED = 5e-5
"""Of the range of logits: the same mathematics, rounded at other places."""

# Layers whose inputs are scaled, of three decoder layers and a head.
FIRED = {
    "llama": 3 * 7 + 1,
    "qwen2": 3 * 7 + 1,  # biases of query, key and value
    "gemma3": 3 * 7 + 0,  # norms with 1 + w, and one behind the output; a head that is the table
    "phi3": 3 * 4 + 1,  # packed projections
    "gpt2": 3 * 3 + 0,  # layer norms; Gelu, which is no product
    "olmo2": 3 * 2 + 1,  # norms behind layers alone: what they read is a sum
    "mixtral": 3 * 4 + 1,  # what experts read stays
}


def _step(
    session: ort.InferenceSession, ids: np.ndarray, cache: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    past = next(iter(cache.values())).shape[2]
    mask = np.ones((len(ids), past + ids.shape[1]), dtype=np.int64)
    feeds = {"input_ids": ids, "attention_mask": mask, **cache}
    if "logits_to_keep" in {i.name for i in session.get_inputs()}:
        feeds["logits_to_keep"] = np.array(0, dtype=np.int64)
    return outputs(session, feeds)


def _logits(model: ir.Model, ids: np.ndarray) -> np.ndarray:
    """Of a prompt and the token behind it, through the cache."""
    session = session_of(model)
    first = _step(session, ids[:, :-1], empty_cache(session, len(ids)))
    cache = {
        name.replace("present.", "past_key_values."): array
        for name, array in first.items()
        if name.startswith("present.")
    }
    return np.concatenate([first["logits"], _step(session, ids[:, -1:], cache)["logits"]], axis=1)


@pytest.mark.parametrize("name", list(FIRED))
def test_a_decoder_computes_the_same(name: str, tmp_path: Path) -> None:
    save(DECODERS[name][0], "text-generation", tmp_path)
    model = compiled(tmp_path, "text-generation")[0].model
    ids, mask = padded(2, 12, "right")
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(mask)}
    before = _logits(model, ids)
    energies = Energies(model, lambda: [{**feeds, "logits_to_keep": np.array(0)}])
    passes = passes_for(load_recipe(RECIPE), energies=energies)
    place = next(i for i, each in enumerate(passes) if isinstance(each, ScaleInputs))
    run(model, passes[: place + 1])
    assert passes[place].fired == FIRED[name]
    assert relative_error(_logits(model, ids), before) <= ADDED
