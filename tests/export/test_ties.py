"""Weights that a configuration ties, and a checkpoint has twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from lepton_compile.export import resolve
from lepton_compile.export.export import export
from lepton_compile.export.traced import Traced
from tests.small import llama

from .harness import FP32, compiled, empty_cache, padded, relative_error, run, save
from .zoo_pairs import PAIRS

HEAD = "lm_head.weight"


def with_head(folder: Path, table: str, *, own: bool) -> None:
    """Store the head beside the table that it is tied to: with numbers of its own, or the same."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    torch.manual_seed(3)
    head = torch.randn_like(tensors[table]) if own else tensors[table].clone()
    save_file({**tensors, HEAD: head}, file, metadata={"format": "pt"})


def tables(exported: Any) -> list[str]:
    """Weights with a row for each word."""
    found = exported.model.graph.initializers.items()
    return [
        name for name, value in found if list(value.shape)[:1] == [99] and len(value.shape) == 2
    ]


@pytest.mark.parametrize("own", [True, False])
def test_a_head_of_its_own(own: bool, tmp_path: Path) -> None:
    """As FLAN-T5 has one."""
    save(PAIRS["t5-gated"][0], "text2text-generation", tmp_path)
    with_head(tmp_path, "shared.weight", own=own)
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    exported, session = compiled(tmp_path, "text2text-generation")
    assert any(note.startswith(f"{HEAD} has numbers of its own") for note in exported.notes) == own
    assert len(tables(exported)) == 1 + own
    (ids, mask), written = padded(2, 9, "right"), np.arange(6).reshape(2, 3) + 5
    with torch.no_grad():
        given = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": written}
        tensors = {name: torch.from_numpy(array) for name, array in given.items()}
        expected = model(**tensors, use_cache=False).logits.numpy()
    feeds = {"encoder_input_ids": ids, "encoder_attention_mask": mask, "input_ids": written}
    more = {"attention_mask": np.ones_like(written), **empty_cache(session, 2)}
    assert relative_error(run(session, {**feeds, **more})["logits"], expected) <= FP32


@pytest.mark.parametrize("own", [True, False])
def test_a_decoder_with_a_head_of_its_own(own: bool, tmp_path: Path) -> None:
    save(lambda: llama(tie_word_embeddings=True), "text-generation", tmp_path)
    with_head(tmp_path, "model.embed_tokens.weight", own=own)
    model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    exported, session = compiled(tmp_path, "text-generation")
    assert len(tables(exported)) == 1 + own
    ids, mask = padded(2, 9, "none")
    with torch.no_grad():
        expected = model(input_ids=torch.from_numpy(ids), use_cache=False).logits.numpy()
    found = run(session, {"input_ids": ids, "attention_mask": mask, **empty_cache(session, 2)})
    assert relative_error(found["logits"], expected) <= FP32


def test_a_graph_with_ties_is_not_taken_for_one_without(tmp_path: Path) -> None:
    """The configuration of both is the same, and so are the shapes."""
    save(lambda: llama(tie_word_embeddings=True), "text-generation", tmp_path)
    traced, source = Traced(), resolve(str(tmp_path), tmp_path)
    assert len(tables(export(source, "text-generation", traced=traced))) == 1
    with_head(tmp_path, "model.embed_tokens.weight", own=True)
    source = resolve(str(tmp_path), tmp_path)
    assert len(tables(export(source, "text-generation", traced=traced))) == 2
