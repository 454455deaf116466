"""Models that give few numbers for a text, such as rerankers: checked and verified like others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import lepton_compile as lc
from lepton_compile.errors import PassError
from lepton_passes.quant.weight_int8 import WeightInt8
from tests.small import bert, byte_tokenizer, made, saved

MARK = 4.0
"""A weight that only one layer has."""


def _reranker(path: Path, labels: int) -> Path:
    config = bert(vocab_size=200, max_position_embeddings=128, num_labels=labels)
    model = made("BertForSequenceClassification", config)
    with torch.no_grad():
        model.bert.encoder.layer[1].intermediate.dense.weight[3, 5] = MARK
    model.save_pretrained(path)
    return path


@pytest.mark.parametrize("quantize", ["int8", "int4"])
@pytest.mark.parametrize("labels", [1, 3])
def test_a_sound_model_with_few_labels_builds(tmp_path: Path, labels: int, quantize: str) -> None:
    built = lc.build(
        model=str(_reranker(tmp_path / "model", labels)),
        task="text-classification",
        quantize=quantize,
        gates={"argmax": None},
        output=tmp_path / "out",
    )
    assert built.manifest.engines[0]["compared"] == {"passes": True, "engine": True}


def test_scores_of_a_broken_reranker_are_rejected_and_leave_their_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check is wider for few numbers, not open; it names the layer, and a report stays."""
    import lepton_passes.quant.weight_int8 as module

    rounded = module.quantize_int8

    def broken(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, scales = rounded(rows)
        return np.flip(values, 0).copy() if rows.max() == MARK else values, scales

    monkeypatch.setattr(module, "quantize_int8", broken)
    with pytest.raises(
        PassError, match=f"the pass {WeightInt8.name} changed the numbers"
    ) as caught:
        lc.build(
            model=str(_reranker(tmp_path / "model", 1)),
            task="text-classification",
            quantize="int8",
            output=tmp_path / "out",
        )
    assert str(caught.value.where).startswith("bert.encoder.layer.1 (")
    assert caught.value.exit_code == 1
    left = ["model", "out.failed.html", "out.failed.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left
    report = json.loads((tmp_path / "out.failed.json").read_text())
    assert report["failure"]["where"] == caught.value.where
    assert report["passes"][-1]["name"] == WeightInt8.name
    assert report["passes"][-1]["error"] == caught.value.error
    page = (tmp_path / "out.failed.html").read_text()
    assert "bert.encoder.layer.1" in page
    assert "error up to" in page


def test_a_model_that_looks_for_the_end_of_a_text_is_verified(tmp_path: Path) -> None:
    """BART reads its scores at the last end token, which texts that are cut have, too."""
    from tokenizers import Tokenizer, processors

    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "init_std": 0.2}
    sizes |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "vocab_size": 260}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.BartConfig(**sizes, **tokens, encoder_ffn_dim=32, decoder_ffn_dim=32)
    folder = saved("BartForSequenceClassification", config, tmp_path / "model")
    byte_tokenizer(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    built = lc.build(model=str(folder), task="text-classification", output=tmp_path / "out")
    assert built.manifest.engines[0]["compared"]["engine"] is True
    assert (
        json.loads((built.path / "report.json").read_text("utf-8"))["capture"]["how"] == "stamped"
    )
