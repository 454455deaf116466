"""Scores of the reference, text by text, from what its layers gave: those of the whole model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any
from weakref import ref

import numpy as np
import pytest
import torch
import transformers
from transformers import LlamaForCausalLM

from lepton_compile.errors import UnrunnableError
from lepton_compile.numerics.reference import Later
from lepton_compile.numerics.reference_head import Head, scores_of, take_apart
from lepton_compile.numerics.reference_scores import AT_ONCE, ReferenceScores, _in_few
from lepton_compile.progress import NullProgress
from tests import small
from tests.export.zoo import DECODERS, MORE_DECODERS

TEXTS = [[5, 3, 8], [1], [9, 9, 2], [4, 4], *([7, n, 1] for n in range(AT_ONCE))]
ROUNDING = 1e-5
"""Of products of matrices that have more rows, in fp32."""

MAMBA = transformers.MambaConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2)
ZOO: dict[str, Callable[[], Any]] = {
    **{name: each[0] for name, each in {**DECODERS, **MORE_DECODERS}.items()},
    "mamba": lambda: MAMBA,
}


def whole(module: Any, text: list[int]) -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(module(input_ids=torch.tensor([text])).logits[0])


def assert_said(found: ReferenceScores, module: Any) -> None:
    for index, text in enumerate(TEXTS):
        scores = found.of(index)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, whole(module, text), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", ZOO)
def test_a_head_says_what_the_whole_says(name: str) -> None:
    """All can be taken apart but OPT, whose head asks for layers below those that it names."""
    torch.manual_seed(0)
    module = transformers.AutoModelForCausalLM.from_config(ZOO[name]()).eval()
    head = take_apart(module, TEXTS[0])
    assert (head is None) == (name == "opt")
    if head is not None:
        scores = head.scores(head.states([TEXTS[0]]))[0].numpy()
        np.testing.assert_array_equal(scores, whole(module, TEXTS[0]))
    assert_said(ReferenceScores(module, TEXTS, NullProgress()), module)


def test_layers_are_let_go_where_they_can_be_loaded_again() -> None:
    kept = small.made("LlamaForCausalLM", small.llama())
    later = Later(lambda: small.made("LlamaForCausalLM", small.llama()))
    layers = ref(later.module().model.layers[0])
    found = ReferenceScores(later, TEXTS, NullProgress())
    assert layers() is None
    assert_said(found, kept)
    np.testing.assert_array_equal(whole(later.module(), TEXTS[0]), whole(kept, TEXTS[0]))


class Looks(LlamaForCausalLM):
    """Its head asks more of the layers than their states."""

    def forward(self, *args: Any, **options: Any) -> Any:
        assert len(self.model.layers)
        return super().forward(*args, **options)


class Adds(LlamaForCausalLM):
    """Its head reads the ids, too."""

    def forward(self, input_ids: Any, **options: Any) -> Any:
        found = super().forward(input_ids, **options)
        found.logits = found.logits + input_ids[..., None]
        return found


class Renamed(LlamaForCausalLM):
    """Nobody can tell which of its parts are the layers."""

    base_model_prefix = "nowhere"


@pytest.mark.parametrize("kind", [Looks, Adds, Renamed])
def test_a_model_that_cannot_be_taken_apart_stays_whole(kind: type[LlamaForCausalLM]) -> None:
    torch.manual_seed(0)
    module = kind(small.llama()).eval()
    assert take_apart(module, TEXTS[0]) is None
    assert_said(ReferenceScores(Later(lambda: module), TEXTS, NullProgress()), module)


@pytest.mark.parametrize("name", ZOO)
def test_layers_that_are_read_each_time_read_all_texts_at_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts of other lengths beside each other say what they say alone."""
    torch.manual_seed(0)
    module = transformers.AutoModelForCausalLM.from_config(ZOO[name]()).eval()
    truth, read, states = copy.deepcopy(module), list[tuple[int, int]](), Head.states

    def told(head: Head, texts: Any) -> Any:
        read.append((len(texts), len(texts[0])))
        return states(head, texts)

    monkeypatch.setattr(Head, "states", told)
    found = ReferenceScores(Later(lambda: module, streamed=True), TEXTS, NullProgress())
    assert read[1:] == ([] if name == "opt" else [(len(TEXTS), 3)])  # behind the probe
    assert_said(found, truth)


def test_more_texts_than_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lepton_compile.numerics.reference_scores.TOKENS", 6)
    groups = [*_in_few(TEXTS)]
    assert [len(group) for group in groups] == [2, 2, 2, 2]
    assert sorted(index for group in groups for index in group) == [*range(len(TEXTS))]


def test_texts_of_one_length_are_read_together() -> None:
    """As many as are told; none is padded, which some models see."""
    module, shapes = small.made("LlamaForCausalLM", small.llama()), []
    module.model.register_forward_pre_hook(
        lambda _, __, given: shapes.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    told: list[tuple[int, int]] = []

    class Told(NullProgress):
        def step(self, what: str, done: int, total: int) -> None:
            told.append((done, total))

    ReferenceScores(module, TEXTS, Told())
    assert shapes[2:] == [(4, 3), (2, 3), (1, 1), (1, 2)], "after the probe, whole and apart"
    assert told == [(4, 8), (6, 8), (7, 8), (8, 8)]


def test_a_model_that_transformers_cannot_run_says_so() -> None:
    class Broken(torch.nn.Module):
        def forward(self, **_: object) -> None:
            raise TypeError("'NoneType' object is not subscriptable")

    with pytest.raises(UnrunnableError, match="cannot run this model") as caught:
        scores_of(Broken(), [[1, 2, 3]])
    assert caught.value.found == "TypeError: 'NoneType' object is not subscriptable"
