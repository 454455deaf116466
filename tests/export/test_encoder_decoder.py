"""Every model of the zoo that reads one text and writes another: the unlowered graph, whole and in
two parts, equals PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, FSMTConfig

from lepton_compile.engines.encoder_part import is_encoder_decoder, split
from lepton_compile.engines.model_file import flatten
from lepton_compile.errors import ExportError
from lepton_compile.export import ExportedModel

from .harness import FP32, compiled, empty_cache, padded, relative_error, run, save, session_of
from .zoo_pairs import PAIRS

TASK = "text2text-generation"
SOURCE, LENGTH, PREFILL = 9, 8, 3


@dataclass
class Case:
    name: str
    model: torch.nn.Module
    exported: ExportedModel
    session: ort.InferenceSession

    def __post_init__(self) -> None:
        ids, mask = padded(2, SOURCE, "right")
        self.source = {"encoder_input_ids": ids, "encoder_attention_mask": mask}
        self.ids = np.random.default_rng(1).integers(3, 98, (2, LENGTH))
        self.expected = self.reference(ids, mask)

    def reference(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        given = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": self.ids}
        with torch.no_grad():
            out = self.model(**{k: torch.from_numpy(v) for k, v in given.items()}, use_cache=False)
        return np.asarray(out.logits.numpy())

    def feeds(self, start: int, stop: int) -> dict[str, np.ndarray]:
        mask = np.ones((2, stop), np.int64)
        return {**self.source, "input_ids": self.ids[:, start:stop], "attention_mask": mask}


@pytest.fixture(scope="module", params=list(PAIRS))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp(request.param)
    save(PAIRS[request.param][0], TASK, folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()  # with what no file has
    exported, session = compiled(folder, TASK)
    return Case(request.param, model, exported, session)


def test_captured_as_expected(case: Case) -> None:
    assert case.exported.how == PAIRS[case.name][1]
    layers = 3 if case.exported.how == "stamped" else 2
    assert len(case.exported.caches) == layers
    names = [i.name for i in case.session.get_inputs()]
    past = [f"past_key_values.{i}.{k}" for i in range(layers) for k in ("key", "value")]
    own = ["encoder_input_ids", "encoder_attention_mask", "input_ids", "attention_mask"]
    assert names == [*own, *past]


def test_all_positions_at_once(case: Case) -> None:
    found = run(case.session, {**case.feeds(0, LENGTH), **empty_cache(case.session, 2)})
    assert found["logits"].shape == case.expected.shape
    assert relative_error(found["logits"], case.expected) <= FP32


def test_two_parts_token_by_token(case: Case) -> None:
    """The encoder once, the decoder for each token with the cache of the one before."""
    model = case.exported.model.clone()
    flatten(model)
    assert is_encoder_decoder(model)
    parts = split(model)
    first, second = map(session_of, parts)
    given = {**case.source, **run(first, case.source)}
    shared = parts[0].graph.initializers.keys() & parts[1].graph.initializers.keys()
    assert all("embed" in name or name == "lm_head.weight" for name in shared)
    past, start = empty_cache(second, 2), 0
    for stop in range(PREFILL, LENGTH + 1):
        feeds = {**given, **case.feeds(start, stop), **past}
        feeds = {i.name: feeds[i.name] for i in second.get_inputs()}
        found = run(second, feeds)
        assert relative_error(found["logits"], case.expected[:, start:stop]) <= FP32
        past = {
            k.replace("present", "past_key_values"): v for k, v in found.items() if k != "logits"
        }
        start = stop


def test_logits_to_keep(case: Case) -> None:
    feeds = {**case.feeds(0, LENGTH), **empty_cache(case.session, 2)}
    found = run(case.session, {**feeds, "logits_to_keep": np.array(2)})
    assert relative_error(found["logits"], case.expected[:, -2:]) <= FP32


def test_positions_that_no_file_has_are_made_as_transformers_makes_them(tmp_path: Path) -> None:
    save(PAIRS["marian"][0], TASK, tmp_path)
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    exported, _ = compiled(tmp_path, TASK)
    for side in ("encoder", "decoder"):
        name = f"model.{side}.embed_positions.weight"
        found = exported.model.graph.initializers[name].const_value
        assert found is not None
        np.testing.assert_array_equal(found.numpy(), model.state_dict()[name].numpy())


def test_a_model_that_passes_over_its_mask_is_refused(tmp_path: Path) -> None:
    """FSMT has no causal mask where it is given a cache: it writes one token at a time."""
    options = {**PAIRS["bart"][0]().to_dict(), "src_vocab_size": 99, "tgt_vocab_size": 99}
    for name in ("vocab_size", "model_type", "architectures"):
        options.pop(name)
    save(lambda: FSMTConfig(langs=["en", "de"], **options), TASK, tmp_path)
    with pytest.raises(ExportError, match="the model does not look at attention_mask"):
        compiled(tmp_path, TASK)


def test_scores_for_another_number_of_tokens_are_refused(tmp_path: Path) -> None:
    """Of a Marian whose languages have vocabularies of their own."""
    options = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 50}
    options |= {"tie_word_embeddings": False, "pad_token_id": 1}
    made = PAIRS["marian"][0]()
    config = type(made)(**{**made.to_dict(), **options})
    save(lambda: config, TASK, tmp_path)
    with pytest.raises(ExportError, match="scores another number of tokens") as caught:
        compiled(tmp_path, TASK)
    assert caught.value.found == "vocab_size: 99, and 50 scores"
