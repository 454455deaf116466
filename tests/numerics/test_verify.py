"""Verification against small transformers models; the engine is a second copy of the model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Self
from weakref import ref

import numpy as np
import pytest
import torch
from transformers import (
    BertModel,
    LlamaForCausalLM,
)

from lepton_compile.errors import UsageError
from lepton_compile.numerics.gates import check_gates
from lepton_compile.numerics.reference import Later, pool
from lepton_compile.numerics.tolerance import tolerance_for
from lepton_compile.numerics.verify import _real_rows, verify
from lepton_compile.numerics.verify_report import VerifyReport
from tests import small

VOCABULARY = 96


class TorchEngine:
    """A model behind the surface of the loader, with noise on its weights."""

    def __init__(self, module: Any, manifest: dict[str, Any], noise: float = 0.0) -> None:
        self.module = copy.deepcopy(module)
        self.manifest = manifest
        self.inputs = {name: {} for name in manifest["feeds"]}
        self.calls: list[tuple[int, ...]] = []
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in self.module.parameters():
                parameter.add_(noise * torch.randn_like(parameter))

    def run(
        self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        assert set(feeds) == set(self.inputs)
        self.calls.append(feeds["input_ids"].shape)
        for size, name in zip(self.calls[-1], ("batch", "sequence"), strict=True):
            low, high = self.manifest["ranges"][name]
            assert low <= size <= high, f"{name} is {size}, not {low} to {high}"
        with torch.inference_mode():
            found = self.module(**{name: torch.from_numpy(a) for name, a in feeds.items()})
        results = {name: found[name].numpy() for name in outputs or () if name in found}
        embedding = self.manifest.get("embedding")
        if embedding:
            hidden = found["last_hidden_state"].numpy()
            results[embedding["output"]] = pool(hidden, feeds["attention_mask"], embedding)
        return results

    def generate(self, prompt: Any, *, max_new_tokens: int = 8) -> Any:
        many = isinstance(prompt[0], list)
        ids = torch.tensor(prompt if many else [list(prompt)])
        assert len(ids) >= self.manifest["ranges"]["batch"][0]
        with torch.inference_mode():
            for _ in range(max_new_tokens):
                token = self.module(input_ids=ids).logits[:, -1:].argmax(-1)
                ids = torch.cat([ids, token], 1)
        width = ids.shape[1] - max_new_tokens
        rows = [SimpleNamespace(tokens=row[width:].tolist()) for row in ids]
        return rows if many else rows[0]


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    config = small.llama(vocab_size=VOCABULARY, max_position_embeddings=2048)
    return small.made("LlamaForCausalLM", config)


@pytest.fixture(scope="module")
def bert() -> BertModel:
    config = small.bert(vocab_size=VOCABULARY, max_position_embeddings=512)
    return small.made("BertModel", config)


class Characters:
    """A tokenizer of one token per character, with a begin token."""

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        ids = [2 + ord(character) % (VOCABULARY - 2) for character in text]
        return [1, *ids] if add_special_tokens else ids


def decoder_manifest(longest: int = 64) -> dict[str, Any]:
    return {
        "task": "text-generation",
        "feeds": ["input_ids", "attention_mask"],
        "outputs": [{"name": "logits"}],
        "ranges": {"batch": [1, 4], "sequence": [1, longest]},
        "generation": {"vocabulary": VOCABULARY},
        "cache": {"shared": True},
    }


def encoder_manifest(embedding: dict[str, Any] | None = None) -> dict[str, Any]:
    names = ["last_hidden_state", *([embedding["output"]] if embedding else [])]
    return {
        "task": "feature-extraction",
        "feeds": ["input_ids", "attention_mask", "token_type_ids"],
        "outputs": [{"name": name} for name in names],
        "ranges": {"batch": [1, 3], "sequence": [1, 40]},
        "embedding": embedding,
    }


def test_a_copy_passes_the_strictest_gates(llama: LlamaForCausalLM) -> None:
    engine = TorchEngine(llama, decoder_manifest())
    report = verify(engine, llama, Characters(), "text-generation", tokens=300)
    checks = check_gates(report, tolerance_for("fp32", "text-generation"))
    assert all(check.passed for check in checks), [str(check) for check in checks]
    assert report.perplexity == pytest.approx(report.reference_perplexity, rel=1e-4)
    assert (report.decode_tokens, report.decode_agreement) == (24, 1.0)
    assert 300 <= report.tokens < 300 + 64


class Watched(TorchEngine):
    """Knows which of the arrays that it gave are still there, and whether it was closed."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.given: list[ref[np.ndarray]] = []
        self.open = True

    def __enter__(self) -> Self:
        self.open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, *args: Any) -> dict[str, np.ndarray]:
        assert self.open
        assert all(array() is None for array in self.given)
        found = super().run(*args)
        self.given.extend(map(ref, found.values()))
        return found

    def generate(self, *args: Any, **options: Any) -> Any:
        assert self.open
        return super().generate(*args, **options)

    def close(self) -> None:
        """It takes no more calls, until it is opened again."""
        self.open = False


def test_an_engine_and_the_layers_of_the_reference_are_never_in_memory_together(
    llama: LlamaForCausalLM,
) -> None:
    engine, loaded = Watched(llama, decoder_manifest(), 0.01), list[ref[torch.nn.Module]]()

    def load() -> LlamaForCausalLM:
        assert not engine.open
        module = copy.deepcopy(llama)
        loaded.append(ref(module.model.layers))
        return module

    def reopened() -> Watched:
        assert [layers() for layers in loaded] == [None]
        return engine

    how = (Characters(), "text-generation")
    reference = Later(load)
    report = verify(engine, reference, *how, tokens=200, release=engine.close, reopened=reopened)
    assert not engine.open
    assert len(engine.given) == report.segments > 1
    open_ = verify(TorchEngine(llama, decoder_manifest(), 0.01), llama, *how, tokens=200)
    assert replace(report, seconds=0) == replace(open_, seconds=0)
    assert llama.model.layers, "a model that was given is as it was"
    engine.open, loaded[:] = True, []
    again = verify(engine, reference, *how, tokens=200, release=engine.close, reopened=reopened)
    assert replace(again, seconds=0) == replace(open_, seconds=0), "of the next engine"


def test_perplexity_is_that_of_the_whole_text(llama: LlamaForCausalLM) -> None:
    text = "the heron waits at the mill, and the mill waits for rain"
    engine = TorchEngine(llama, decoder_manifest())
    report = verify(engine, llama, Characters(), "text-generation", text=text)
    ids = torch.tensor([Characters().encode(text, add_special_tokens=True)])
    with torch.inference_mode():
        expected = llama(input_ids=ids, labels=ids).loss.exp().item()
    assert report.segments == 1
    assert report.reference_perplexity == pytest.approx(expected, rel=1e-4)


def test_noise_is_seen_in_every_number(llama: LlamaForCausalLM) -> None:
    engine = TorchEngine(llama, decoder_manifest(), noise=0.05)
    report = verify(engine, llama, Characters(), "text-generation", tokens=200)
    assert report.relative_error > 1e-2
    assert report.cosine < 0.999
    assert report.argmax_agreement is not None
    assert report.argmax_agreement < 1.0
    checks = check_gates(report, tolerance_for("fp32", "text-generation"))
    assert not all(check.passed for check in checks)


def test_segments_stay_inside_the_range(llama: LlamaForCausalLM) -> None:
    engine = TorchEngine(llama, decoder_manifest(longest=20))
    report = verify(engine, llama, Characters(), "text-generation", tokens=100)
    assert max(shape[1] for shape in engine.calls) <= 20
    assert report.decode_tokens == 10


@pytest.mark.parametrize("cache", [None, {"shared": False}])
def test_an_engine_that_cannot_generate_is_compared_without(
    llama: LlamaForCausalLM, cache: dict[str, bool] | None
) -> None:
    engine = TorchEngine(llama, {**decoder_manifest(), "cache": cache})
    report = verify(engine, llama, None, "text-generation")
    assert (report.decode_tokens, report.decode_agreement) == (0, None)


def test_without_a_tokenizer_random_ids_are_fed(llama: LlamaForCausalLM) -> None:
    report = verify(TorchEngine(llama, decoder_manifest()), llama, None, "text-generation")
    assert "random ids" in report.sample
    assert report.relative_error < 1e-5


def test_padding_is_left_out_for_encoders(bert: BertModel) -> None:
    engine = TorchEngine(bert, encoder_manifest())
    found = verify(engine, bert, Characters(), "feature-extraction", tokens=200)
    assert found.outputs[0].difference.rows == found.tokens
    assert max(shape[0] for shape in engine.calls) <= 3
    assert found.relative_error < 1e-5


def test_garbage_at_padding_is_not_an_error(bert: BertModel) -> None:
    class Careless(TorchEngine):
        def run(self, feeds: Any, outputs: Any = None) -> dict[str, np.ndarray]:
            results = super().run(feeds, outputs)
            results["last_hidden_state"][feeds["attention_mask"] == 0] = np.nan
            return results

    report = verify(Careless(bert, encoder_manifest()), bert, Characters(), "feature-extraction")
    assert report.not_finite == 0
    assert report.relative_error < 1e-5


def test_positions_of_its_own_are_all_compared() -> None:
    """Perceiver writes as many for each text, whatever its length: no mask says which are real."""
    wanted, real = np.arange(24.0).reshape(2, 4, 3), np.array([[True, True], [True, False]])
    ((one, other),) = _real_rows("logits", wanted, wanted + 1, real)
    assert one.shape == (8, 3)
    assert np.array_equal(other - one, np.ones((8, 3)))


@pytest.mark.parametrize(
    ("batch", "sequence"), [([8, 8], [32, 32]), ([6, 64], [200, 300]), ([300, 400], [1, 64])]
)
def test_an_encoder_is_fed_what_it_takes(
    bert: BertModel, batch: list[int], sequence: list[int]
) -> None:
    embedding = {"pooling": "mean", "normalize": True, "output": "sentence_embedding"}
    manifest = {**encoder_manifest(embedding), "ranges": {"batch": batch, "sequence": sequence}}
    engine = TorchEngine(bert, manifest)
    report = verify(engine, bert, Characters(), "feature-extraction", tokens=500)
    tokens, texts = (output.difference.rows for output in report.outputs)
    assert (tokens, texts) == (report.tokens, report.segments)
    assert sum(rows for rows, _ in engine.calls) > texts  # some were copies
    assert report.relative_error < 1e-5


def test_a_decoder_is_fed_as_many_rows_as_it_takes(llama: LlamaForCausalLM) -> None:
    ranges = {"batch": [3, 4], "sequence": [1, 64]}
    engine = TorchEngine(llama, {**decoder_manifest(), "ranges": ranges})
    report = verify(engine, llama, Characters(), "text-generation", tokens=100)
    assert {rows for rows, _ in engine.calls} == {3}
    assert report.outputs[0].difference.rows == report.tokens
    assert (report.decode_tokens, report.decode_agreement) == (24, 1.0)


@pytest.mark.parametrize("kind", ["mean", "cls", "max", "lasttoken"])
def test_pooled_embedding_decides_the_cosine(bert: BertModel, kind: str) -> None:
    embedding = {"pooling": kind, "normalize": True, "output": "sentence_embedding"}
    engine = TorchEngine(bert, encoder_manifest(embedding), noise=0.1)
    report = verify(engine, bert, Characters(), "feature-extraction", tokens=200)
    by_name = {output.name: output.difference for output in report.outputs}
    assert report.cosine == by_name["sentence_embedding"].cosine
    assert by_name["sentence_embedding"].rows == report.segments


def test_mean_pooling_by_hand() -> None:
    hidden = np.array([[[1.0, 0.0], [3.0, 0.0], [9.0, 9.0]]], np.float32)
    mask = np.array([[1, 1, 0]])
    found = pool(hidden, mask, {"pooling": "mean", "normalize": False})
    assert found.tolist() == [[2.0, 0.0]]
    with pytest.raises(ValueError, match="unknown pooling"):
        pool(hidden, mask, {"pooling": "median"})


def test_a_tokenizer_that_makes_nothing_of_the_sample_is_said(bert: BertModel) -> None:
    from tokenizers import Tokenizer, models

    engine = TorchEngine(bert, encoder_manifest())
    for task in ("feature-extraction", "text-generation"):
        with pytest.raises(UsageError, match="nothing in this text") as caught:
            verify(engine, bert, Tokenizer(models.BPE({}, [])), task)
        assert caught.value.found == "the sample text"


@pytest.mark.parametrize("text", ["", "\n\n "])
def test_nothing_to_compare_on_is_said(bert: BertModel, text: str) -> None:
    engine = TorchEngine(bert, encoder_manifest())
    with pytest.raises(UsageError, match="nothing in this text"):
        verify(engine, bert, Characters(), "feature-extraction", text=text)


def test_the_report_is_json(llama: LlamaForCausalLM) -> None:
    import json

    report = verify(TorchEngine(llama, decoder_manifest()), llama, None, "text-generation")
    data = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert data["outputs"][0]["name"] == "logits"
    assert data["perplexity_increase"] == pytest.approx(0.0, abs=1e-4)


def test_texts_with_one_score_are_compared_in_pairs() -> None:
    config = small.bert(vocab_size=VOCABULARY, max_position_embeddings=512, num_labels=1)
    module = small.made("BertForSequenceClassification", config)
    manifest = {
        "ranges": {"batch": [1, 8], "sequence": [1, 64]},
        "outputs": [{"name": "logits"}],
        "feeds": ["input_ids", "attention_mask"],
    }

    def verified(change: Any) -> VerifyReport:
        engine = TorchEngine(module, manifest)
        change(engine.module)
        return verify(engine, module, None, "text-classification")

    assert verified(lambda model: None).argmax_agreement == 1.0
    turned = verified(lambda model: model.classifier.weight.data.mul_(-1.0))
    assert turned.argmax_agreement == 0.0
    assert turned.outputs[0].argmax_rows == 28
    assert turned.cosine < 0
    assert not all(c.passed for c in check_gates(turned, tolerance_for("int8", turned.task)))
