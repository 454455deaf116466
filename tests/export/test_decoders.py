"""Every decoder of the zoo: the unlowered graph equals PyTorch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

from lepton_compile.export import ExportedModel
from lepton_compile.export.trace import EXAMPLE_SIZES

from .harness import FP32, compiled, empty_cache, padded, relative_error, run, save
from .zoo import DECODERS, MORE_DECODERS, WINDOW
from .zoo_places import PLACES

LENGTH = 3 * WINDOW
PREFILL = WINDOW + 3


@dataclass
class Case:
    name: str
    model: torch.nn.Module
    exported: ExportedModel
    session: ort.InferenceSession

    @property
    def layers(self) -> int:
        return int(self.model.config.num_hidden_layers)

    def reference(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        given = {"input_ids": ids, "attention_mask": mask}
        if "position_ids" in inspect.signature(self.model.forward).parameters:
            given["position_ids"] = np.maximum(mask.cumsum(1) - 1, 0)
        with torch.no_grad():
            out = self.model(**{k: torch.from_numpy(v) for k, v in given.items()}, use_cache=False)
        return out.logits.numpy()


@pytest.fixture(scope="module", params=list(DECODERS))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return _case(request.param, DECODERS[request.param][0], tmp_path_factory.mktemp(request.param))


def _case(name: str, config: Callable[[], Any], folder: Path, **options: Any) -> Case:
    model = save(config, "text-generation", folder)
    exported, session = compiled(folder, "text-generation", **options)
    return Case(name, model, exported, session)


@pytest.mark.parametrize("name", [*MORE_DECODERS, *PLACES])
def test_more_of_them_equal_pytorch(name: str, tmp_path: Path) -> None:
    config, how = {**MORE_DECODERS, **PLACES}[name]
    case = _case(name, config, tmp_path)
    assert (case.exported.how, len(case.exported.caches)) == (how, case.layers)
    test_full_sequence(case, "right")
    test_prefill_then_decode(case, "left")


def test_captured_as_expected(case: Case) -> None:
    _, how, kinds = DECODERS[case.name]
    assert (case.exported.how, case.exported.kinds) == (how, kinds)
    assert len(case.exported.caches) == case.layers


def test_inputs_are_the_agreed_ones(case: Case) -> None:
    names = [i.name for i in case.session.get_inputs()]
    past = [f"past_key_values.{i}.{k}" for i in range(case.layers) for k in ("key", "value")]
    assert names == ["input_ids", "attention_mask", *past]
    assert [i.name for i in case.session.get_overridable_initializers()] == ["logits_to_keep"]


@pytest.mark.parametrize("side", ["none", "right", "left"])
def test_full_sequence(case: Case, side: str) -> None:
    ids, mask = padded(2, LENGTH, side)
    expected = case.reference(ids, mask)
    feeds = {"input_ids": ids, "attention_mask": mask, **empty_cache(case.session, 2)}
    found = run(case.session, feeds)["logits"]
    real = mask.astype(bool)
    assert relative_error(found[real], expected[real]) <= FP32
    assert (found[real].argmax(-1) == expected[real].argmax(-1)).all()


@pytest.mark.parametrize("side", ["none", "left"])
def test_prefill_then_decode(case: Case, side: str) -> None:
    """Step by step past the window; each step sees the cache of the one before."""
    _decodes(case, side, PREFILL, LENGTH)


def _decodes(case: Case, side: str, prefill: int, length: int) -> None:
    ids, mask = padded(2, length, side)
    expected = case.reference(ids, mask)
    past = empty_cache(case.session, 2)
    start = 0
    for stop in range(prefill, length + 1):
        feeds = {"input_ids": ids[:, start:stop], "attention_mask": mask[:, :stop], **past}
        found = run(case.session, feeds)
        real = mask[:, start:stop].astype(bool)
        assert relative_error(found["logits"][real], expected[:, start:stop][real]) <= FP32
        past = {
            k.replace("present", "past_key_values"): v for k, v in found.items() if k != "logits"
        }
        start = stop


@pytest.mark.parametrize("name", ["llama", "falcon-alibi"])
def test_a_cache_may_have_less_room_than_the_one_of_the_trace(name: str, tmp_path: Path) -> None:
    """It was captured as a model that has none."""
    config, how, _ = DECODERS[name]
    length = EXAMPLE_SIZES["sequence"]
    case = _case(name, config, tmp_path, length=length)
    assert (case.exported.how, len(case.exported.caches)) == (how, case.layers)
    assert case.exported.length == length < EXAMPLE_SIZES["total_sequence"]
    _decodes(case, "left", 4, length)


@pytest.mark.parametrize(("keep", "positions"), [(0, LENGTH), (1, 1), (5, 5), (LENGTH + 9, LENGTH)])
def test_logits_to_keep(case: Case, keep: int, positions: int) -> None:
    ids, mask = padded(2, LENGTH, "none")
    feeds = {"input_ids": ids, "attention_mask": mask, **empty_cache(case.session, 2)}
    everything = run(case.session, feeds)["logits"]
    kept = run(case.session, {**feeds, "logits_to_keep": np.array(keep)})["logits"]
    assert kept.shape[1] == positions
    # Another row count may take another matrix kernel.
    np.testing.assert_allclose(kept, everything[:, -positions:], rtol=1e-4, atol=1e-4)


def test_one_tensor_for_tied_weights(case: Case) -> None:
    tied = case.model.config.tie_word_embeddings
    vocabulary = case.model.config.vocab_size
    weights = case.exported.model.graph.initializers.values()
    tables = [v for v in weights if list(v.shape)[:1] == [vocabulary] and len(v.shape) == 2]
    assert len(tables) == (1 if tied else 2)
