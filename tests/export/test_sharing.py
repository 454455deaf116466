"""Layers that read the keys and values of an earlier layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers.models.gemma4 import modeling_gemma4

import lepton_compile as lc
from lepton_compile.errors import EngineError, ExportError, PassError
from lepton_compile.export import model as graphs
from lepton_passes.body import DIALECT, bodies

from .harness import FP32, compiled, padded, relative_error, run, save
from .test_decoders import Case, test_full_sequence, test_logits_to_keep, test_prefill_then_decode
from .zoo import SHARING, WINDOW

NAMES = list(SHARING)


@pytest.fixture(scope="module", params=NAMES)
def saved(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, torch.nn.Module, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, save(SHARING[request.param][0], "text-generation", folder), folder


@pytest.fixture(scope="module", params=["stamped", "whole"])
def case(request: pytest.FixtureRequest, saved: tuple[str, torch.nn.Module, Path]) -> Case:
    name, model, folder = saved
    with pytest.MonkeyPatch.context() as patch:
        ways = [way for way in graphs.WAYS if way.name == request.param]
        patch.setattr(graphs, "WAYS", ways)
        exported, session = compiled(folder, "text-generation")
    return Case(name, model, exported, session)


def test_layers_that_share_have_no_cache(case: Case) -> None:
    _, kinds, caches = SHARING[case.name]
    stamped = case.exported.how == "stamped"
    layers = case.model.config.num_hidden_layers
    assert case.exported.kinds == (kinds if stamped else 0)
    assert len(case.exported.caches) == caches
    assert case.exported.sharing == layers - caches
    windows = [WINDOW if i % 2 == 0 else None for i in range(caches)]
    assert [cache.window for cache in case.exported.caches] == windows
    found = {
        op: sum(b.times * len(b.nodes(op, domain=DIALECT)) for b in bodies(case.exported.model))
        for op in ("CachedAttention", "SharedAttention", "Attention")
    }
    assert found == {
        "CachedAttention": caches,
        "SharedAttention": layers - caches,
        "Attention": 0,
    }


@pytest.mark.parametrize("side", ["none", "right", "left"])
def test_whole_sequences(case: Case, side: str) -> None:
    test_full_sequence(case, side)


@pytest.mark.parametrize("side", ["none", "left"])
def test_step_by_step(case: Case, side: str) -> None:
    test_prefill_then_decode(case, side)


def test_last_logits(case: Case) -> None:
    test_logits_to_keep(case, 1, 1)


def test_without_a_cache(tmp_path: Path) -> None:
    """For embeddings keys of another layer are a tensor like others."""
    model = save(SHARING["gemma4-e2b"][0], "feature-extraction", tmp_path)
    exported, session = compiled(tmp_path, "feature-extraction")
    assert (exported.how, exported.sharing, exported.caches) == ("whole", 0, [])
    ids, mask = padded(2, 3 * WINDOW, "right")
    with torch.no_grad():
        given = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        expected = model(**given, use_cache=False).last_hidden_state.numpy()
    found = run(session, {"input_ids": ids, "attention_mask": mask})["last_hidden_state"]
    real = mask.astype(bool)
    assert relative_error(found[real], expected[real]) <= FP32


def test_keys_that_a_layer_changes_are_not_stamped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a layer hands on has to be what its cache holds."""
    attention = modeling_gemma4.Gemma4TextAttention
    forward = attention.forward

    def changed(self: Any, *args: Any, shared_kv_states: Any, **kwargs: Any) -> Any:
        out = forward(self, *args, shared_kv_states=shared_kv_states, **kwargs)
        if self.store_full_length_kv:
            pair = shared_kv_states[self.layer_type]
            shared_kv_states[self.layer_type] = tuple(2 * each for each in pair)
        return out

    monkeypatch.setattr(attention, "forward", changed)
    reason = "a layer shares what is not the whole of its one cache at model.layers.2"
    assert reason in _why_not_stamped(tmp_path, monkeypatch)


def test_keys_that_are_read_between_layers_are_not_stamped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Changed(modeling_gemma4.KVSharingDict):
        def __setitem__(self, name: str, pair: Any) -> None:
            super().__setitem__(name, tuple(2 * each for each in pair))

    monkeypatch.setattr(modeling_gemma4, "KVSharingDict", Changed)
    reason = "keys and values that layers share are read outside of layers"
    assert reason in _why_not_stamped(tmp_path, monkeypatch)


def _why_not_stamped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    save(SHARING["gemma4-e2b"][0], "text-generation", folder)
    monkeypatch.setattr(graphs, "WAYS", graphs.WAYS[:1])
    with pytest.raises(ExportError) as caught:
        compiled(folder, "text-generation")
    return str(caught.value.found)


def test_tensorrt_refuses_them_by_name(tmp_path: Path) -> None:
    save(SHARING["gemma4-e2b"][0], "text-generation", tmp_path / "model")
    options: dict[str, Any] = {
        "model": str(tmp_path / "model"),
        "target": "trt-rtx",
        "shapes": {"sequence": 32},
    }
    reason = "layers that read another layer's cache are lowered for ONNX Runtime alone"
    assert reason in lc.plan(**options).engines[0].missing
    with pytest.raises(PassError, match="does not pass") as caught:
        lc.build(output=tmp_path / "out", check=False, verify=False, **options)
    assert reason in str(caught.value.found)


def test_buffers_with_room_need_the_kernel(tmp_path: Path) -> None:
    """Attention in standard ops reads a cache to its end, so that it has to end with the tokens."""
    model = save(SHARING["gemma4-e2b"][0], "text-generation", tmp_path / "model")
    options: dict[str, Any] = {"model": str(tmp_path / "model"), "verify": False}
    disabled = {"disable": ["lower-shared-attention", "lower-cached-attention"]}
    apart = lc.build(output=tmp_path / "apart", passes=disabled, **options)
    within = lc.build(output=tmp_path / "within", passes={"expect": {"attention": 7}}, **options)
    ids, mask = padded(2, 7, "left")
    for artifact, shared, least in ((apart, False, ">=1.30"), (within, True, ">=1.31")):
        assert artifact.manifest.cache is not None
        assert artifact.manifest.cache["shared"] is shared
        assert artifact.manifest.engines[0]["requires"] == {"onnxruntime": least}
        with lc.load(artifact.path) as engine, torch.no_grad():
            logits = engine.run({"input_ids": ids, "attention_mask": mask})["logits"]
            for row, seen, ours in zip(ids, mask.astype(bool), logits, strict=True):
                expected = model(torch.tensor(row[seen][None])).logits[0].numpy()
                assert relative_error(ours[seen], expected) < FP32
            tokens = list(engine.generate(ids[0].tolist(), max_new_tokens=9).tokens)
            greedy = model.generate(  # type: ignore[operator]
                torch.tensor(ids[:1]), max_new_tokens=9, do_sample=False
            )
        assert tokens == greedy[0, ids.shape[1] :].tolist()


def test_refuses_to_read_a_cache_otherwise_than_it_is_written(tmp_path: Path) -> None:
    save(SHARING["gemma4-e2b"][0], "text-generation", tmp_path / "model")
    with pytest.raises(EngineError, match="otherwise than it is written") as caught:
        lc.build(
            model=str(tmp_path / "model"),
            output=tmp_path / "out",
            passes={"disable": ["lower-shared-attention"]},
            verify=False,
        )
    assert caught.value.found == "lower-shared-attention took 0 of 3 layers"


def test_the_model_is_as_it_was(tmp_path: Path) -> None:
    """What layers are kept from while they are traced comes back."""
    from lepton_compile.export.capture.sharing import uncut

    class Cutting(nn.Module):
        def _maybe_slice_kv_shared_inputs(self, *given: Any) -> Any:
            return tuple(each[-1:] for each in given)

    model, given = Cutting(), [np.arange(3)] * 4
    with uncut(model):
        assert [len(each) for each in model._maybe_slice_kv_shared_inputs(*given, 1)] == [3] * 4
    assert [len(each) for each in model._maybe_slice_kv_shared_inputs(*given)] == [1] * 4
