"""Decoders with states in place of a cache, from a folder to an engine that generates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lepton_compile as lc
from lepton_compile.errors import PassError
from lepton_compile.runtime import LoaderError
from tests.export.harness import save
from tests.export.hybrids import HYBRIDS, endless

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [11, 12, 13], [20, 21, 22, 23, 24, 25, 26], [4]]
NEW = 6


@dataclass
class Case:
    name: str
    model: torch.nn.Module
    folder: Path
    built: Path


# Attention beside convolutions, beside those and linear attention, and none at all.
@pytest.fixture(scope="module", params=["lfm2", "qwen3.5", "mamba2"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp(request.param)
    model = save(endless(request.param), "text-generation", root / "model")
    lc.build(model=str(root / "model"), output=root / "out", tactics="default")
    return Case(request.param, model, root / "model", root / "out")


def _greedy(model: torch.nn.Module, ids: list[int]) -> list[int]:
    row = list(ids)
    with torch.no_grad():
        for _ in range(NEW):
            row.append(int(model(torch.tensor([row]), use_cache=False).logits[0, -1].argmax()))
    return row[len(ids) :]


def test_generates_as_pytorch_does(case: Case) -> None:
    """Rows of different lengths together, and again in the buffers of the first time."""
    expected = [_greedy(case.model, ids) for ids in PROMPTS]
    with lc.load(case.built) as model:
        for _ in range(2):
            found = model.generate(PROMPTS, max_new_tokens=NEW)
            assert [row.tokens for row in found] == expected
        assert model.generate(PROMPTS[2], max_new_tokens=NEW).tokens == expected[2]


def test_the_manifest_has_the_states(case: Case) -> None:
    wanted = HYBRIDS[case.name]
    with lc.load(case.built) as model:
        cache, inputs = model.manifest["cache"], model.inputs
    assert cache["shared"] is True
    assert not cache["pieces"]
    assert len(cache["layers"]) == wanted.caches
    assert len(cache["states"]) == wanted.conv + wanted.recurrent
    at = [number for number, kept in enumerate(wanted.layers) if kept == "a"]
    assert [layer["layer"] for layer in cache["layers"]] == at
    for state in cache["states"]:
        assert inputs[state["past"]]["shape"] == ["batch", *state["shape"]]


def test_no_loop_over_tokens_is_left(case: Case) -> None:
    wanted, plan = HYBRIDS[case.name], lc.plan(model=str(case.folder))
    (planned,) = plan.engines
    assert planned.missing == []
    assert plan.layers.startswith(f"{len(wanted.layers)} layers, {wanted.kinds} kind")
    assert planned.ops.get("com.microsoft::CausalConvWithState", 0) == wanted.conv
    assert planned.ops.get("com.microsoft::LinearAttention", 0) == wanted.recurrent
    assert "Scan" not in planned.ops


def test_run_goes_on_from_what_it_gave(case: Case) -> None:
    ids = np.array([PROMPTS[0]])
    with lc.load(case.built) as model:
        whole = model.run({"input_ids": ids})["logits"]
        first = model.run({"input_ids": ids[:, :4]})
        past = {_past(name): array for name, array in first.items() if name != "logits"}
        rest = model.run({"input_ids": ids[:, 4:], **past})["logits"]
    np.testing.assert_allclose(np.concatenate([first["logits"], rest], 1), whole, atol=1e-4)


def _past(name: str) -> str:
    """The input that goes on from an output."""
    return name.replace("present.", "past_key_values.").replace("present_", "past_")


@pytest.mark.parametrize("side", [0, -1], ids=["left", "right"])
def test_padding_is_in_no_logits_and_leaves_no_states(case: Case, side: int) -> None:
    ids, mask = np.array([PROMPTS[0], PROMPTS[2]]), np.ones((2, 7), np.int64)
    mask[1, side] = 0
    real = PROMPTS[2][1:] if side == 0 else PROMPTS[2][:-1]
    with torch.no_grad():
        expected = case.model(torch.tensor([real]), use_cache=False).logits[0].numpy()
    with lc.load(case.built) as model:
        found = model.run({"input_ids": ids, "attention_mask": mask}, ["logits"])["logits"]
        np.testing.assert_allclose(found[1][mask[1] == 1], expected, atol=1e-4)
        with pytest.raises(LoaderError, match="padded rows leave no states to go on from"):
            model.run({"input_ids": ids, "attention_mask": mask})


def test_tensorrt_refuses_them_by_name(case: Case, tmp_path: Path) -> None:
    with pytest.raises(PassError, match="does not pass legal") as caught:
        lc.build(model=str(case.folder), target="trt-rtx", output=tmp_path / "out", verify=False)
    assert "convolutions with a state are lowered for ONNX Runtime alone" in str(caught.value.found)
    assert not (tmp_path / "out").exists()


def test_linear_layers_around_states_are_quantized(case: Case, tmp_path: Path) -> None:
    quantize = "int4" if case.name == "lfm2" else "int8"
    options: dict[str, Any] = {"model": str(case.folder), "quantize": quantize, "check": False}
    lc.build(output=tmp_path / "out", verify=False, tactics="default", **options)
    ids = np.array([PROMPTS[0]])
    with torch.no_grad():
        expected = case.model(torch.from_numpy(ids), use_cache=False).logits.numpy()
    with lc.load(tmp_path / "out") as model:
        found = model.run({"input_ids": ids}, ["logits"])["logits"]
    assert (tmp_path / "out/engines/ort-cpu/weights.bin").stat().st_size < (
        case.built / "engines/ort-cpu/weights.bin"
    ).stat().st_size
    # Random weights of a tenth of a model's width leave 4 bits little to say.
    cosine = (found * expected).sum() / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine > (0.97 if quantize == "int8" else 0.6)


@pytest.mark.parametrize("name", ["lfm2", "qwen3.5", "mamba2"])
def test_embeds_without_states(name: str, tmp_path: Path) -> None:
    model = save(HYBRIDS[name].config, "feature-extraction", tmp_path / "model")
    options: dict[str, Any] = {"task": "feature-extraction", "tactics": "default"}
    lc.build(model=str(tmp_path / "model"), output=tmp_path / "out", **options)
    ids = np.array([PROMPTS[0]])
    with torch.no_grad():
        expected = model(torch.from_numpy(ids), use_cache=False).last_hidden_state.numpy()
    with lc.load(tmp_path / "out") as loaded:
        assert loaded.cache is None
        found = loaded.run({"input_ids": ids})["last_hidden_state"]
    np.testing.assert_allclose(found, expected, atol=1e-4)
