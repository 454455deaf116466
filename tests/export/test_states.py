"""Decoders with states in place of a cache: the unlowered graph equals PyTorch."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from lepton_compile.export import ExportedModel

from .harness import FP32, compiled, empty_cache, padded, relative_error, run, save
from .hybrids import HYBRIDS

LENGTH, PREFILL = 21, 9


@dataclass
class Case:
    name: str
    exported: ExportedModel
    session: ort.InferenceSession
    expected: dict[str, np.ndarray]  # by side of the padding


# One of each kind is looked at from all sides.
CLOSELY = ["lfm2", "qwen3.5", "falcon-h1", "mamba"]


@pytest.fixture(scope="module", params=CLOSELY)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return _case(request.param, tmp_path_factory.mktemp(request.param))


def _case(name: str, folder: Path) -> Case:
    model = save(HYBRIDS[name].config, "text-generation", folder)
    exported, session = compiled(folder, "text-generation")
    expected = {side: _reference(model, side) for side in ("none", "left")}
    return Case(name, exported, session, expected)


@pytest.mark.parametrize("name", [name for name in HYBRIDS if name not in CLOSELY])
def test_more_of_them_equal_pytorch(name: str, tmp_path: Path) -> None:
    case = _case(name, tmp_path)
    test_captured_as_expected(case)
    test_inputs_are_named_by_layer(case)
    test_full_sequence(case, "left")
    test_prefill_then_decode(case, "left", 1)


def _reference(model: torch.nn.Module, side: str) -> np.ndarray:
    ids, mask = padded(2, LENGTH, side)
    given = {"input_ids": ids, "attention_mask": mask}
    if "position_ids" in inspect.signature(model.forward).parameters:
        given["position_ids"] = np.maximum(mask.cumsum(1) - 1, 0)
    with torch.no_grad():
        out = model(**{k: torch.from_numpy(v) for k, v in given.items()}, use_cache=False)
    return out.logits.numpy()


def test_captured_as_expected(case: Case) -> None:
    wanted = HYBRIDS[case.name]
    kinds = [state.kind for state in case.exported.states]
    assert (case.exported.how, case.exported.kinds) == (wanted.how, wanted.kinds)
    assert len(case.exported.caches) == wanted.caches
    assert (kinds.count("conv"), kinds.count("recurrent")) == (wanted.conv, wanted.recurrent)


def test_inputs_are_named_by_layer(case: Case) -> None:
    wanted = HYBRIDS[case.name]
    names = {i.name for i in case.session.get_inputs()}
    caches = [i for i, kept in enumerate(wanted.layers) if kept in "ab"]
    states = [i for i, kept in enumerate(wanted.layers) if kept in "sb"]
    past = {f"past_key_values.{i}.{k}" for i in caches for k in ("key", "value")}
    past |= {f"past_conv.{i}" for i in states if wanted.conv}
    past |= {f"past_recurrent.{i}" for i in states if wanted.recurrent}
    assert names == {"input_ids", "attention_mask", *past}
    outputs = {
        name.replace("past_key_values", "present").replace("past", "present") for name in past
    }
    assert {o.name for o in case.session.get_outputs()} == {"logits", *outputs}


@pytest.mark.parametrize("side", ["none", "left"])
def test_full_sequence(case: Case, side: str) -> None:
    ids, mask = padded(2, LENGTH, side)
    feeds = {"input_ids": ids, "attention_mask": mask, **empty_cache(case.session, 2)}
    found, real = run(case.session, feeds)["logits"], mask.astype(bool)
    expected = case.expected[side]
    assert relative_error(found[real], expected[real]) <= FP32
    assert (found[real].argmax(-1) == expected[real].argmax(-1)).all()


@pytest.mark.parametrize("side", ["none", "left"])
@pytest.mark.parametrize("step", [1, 4])
def test_prefill_then_decode(case: Case, side: str, step: int) -> None:
    """Each step goes on from the states of the one before."""
    ids, mask = padded(2, LENGTH, side)
    past, start = empty_cache(case.session, 2), 0
    for stop in range(PREFILL, LENGTH + 1, step):
        feeds = {"input_ids": ids[:, start:stop], "attention_mask": mask[:, :stop], **past}
        found = run(case.session, feeds)
        real = mask[:, start:stop].astype(bool)
        expected = case.expected[side][:, start:stop]
        assert relative_error(found["logits"][real], expected[real]) <= FP32
        past = {name: found[_present(name)] for name in past}
        start = stop


def test_a_prompt_shorter_than_the_window_of_a_convolution(case: Case) -> None:
    ids, mask = padded(2, LENGTH, "none")
    past, found = empty_cache(case.session, 2), []
    for start in range(3):
        feeds = {"input_ids": ids[:, start : start + 1], "attention_mask": mask[:, : start + 1]}
        outputs = run(case.session, {**feeds, **past})
        found.append(outputs["logits"])
        past = {name: outputs[_present(name)] for name in past}
    expected = case.expected["none"][:, :3]
    assert relative_error(np.concatenate(found, axis=1), expected) <= FP32


def _present(name: str) -> str:
    return name.replace("past_key_values", "present").replace("past_", "present_")
