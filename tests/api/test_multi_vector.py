"""Models for late interaction, built and held against sentence-transformers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lepton_compile as lc
from lepton_compile.errors import LeptonError, RecipeError, SourceError
from lepton_compile.export import resolve
from lepton_compile.export.multi_vector import (
    Expansion,
    is_multi_vector_model,
    roles,
    token_vectors,
)
from lepton_compile.runtime import LoaderError
from tests.api.rounded import verified
from tests.runtime.test_emit import imported
from tests.runtime.test_loader_forged import outcomes
from tests.small import bert, byte_tokenizer, saved

TEXTS = ["hello", "a much longer text that is cut somewhere, as query and as document", "o l o"]
TOLERANCE = 1e-5  # fp32 in another order of additions, of vectors of length 1
WIDTH = 32
FIXED = {"strategy": "fixed", "attend": False, "length": 16, "token": "</s>"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT."""
    folder = tmp_path_factory.mktemp("late") / "encoder"
    saved("BertModel", bert(vocab_size=260, max_position_embeddings=80), folder)
    byte_tokenizer(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    write(folder / "tokenizer_config.json", {**settings, "unk_token": "<unk>"})
    return folder


def late(encoder: Path, folder: Path, **how: Any) -> Any:
    """Saved by sentence-transformers; its own model, to compare with."""
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    torch.manual_seed(3)
    model = MultiVectorEncoder(
        modules=[
            Transformer(str(encoder), **how),
            Dense(64, WIDTH, bias=False, activation_function=None, module_input_name=TOKENS),
            Normalize(module_input_name=TOKENS),
            MultiVectorMask(skiplist_words=["o", "no token"]),
        ],
        prompts={"query": "Q ", "document": "D "},
        device="cpu",
    )
    model.save_pretrained(str(folder))
    return model


TOKENS = "token_embeddings"


def check(artifact: Path, truth: Any) -> None:
    """The vectors of both roles."""
    with lc.load(artifact, threads=1) as model:
        assert model.task == "multi-vector-embedding"
        for role, encode in (("query", truth.encode_query), ("document", truth.encode_document)):
            found, wanted = model.vectors(TEXTS, role), encode(TEXTS)
            for ours, theirs in zip(found, wanted, strict=True):
                assert ours.shape == tuple(theirs.shape)
                assert np.abs(ours - theirs.numpy()).max() <= TOLERANCE


@pytest.mark.parametrize(
    "expansion",
    [None, FIXED, {**FIXED, "attend": True}, {**FIXED, "strategy": "min", "length": 20}],
    ids=["none", "fixed", "attended", "at least"],
)
def test_as_sentence_transformers(
    expansion: dict[str, Any] | None, encoder: Path, tmp_path: Path
) -> None:
    truth = late(encoder, tmp_path / "model", query_expansion=expansion, document_length=24)
    built = lc.build(model=str(tmp_path / "model"), output=tmp_path / "out", verify={"tokens": 256})
    check(built.path, truth)


def pylate(encoder: Path, folder: Path, **settings: Any) -> Path:
    """The same as PyLate saves it: two modules, and all else in one file."""
    late(encoder, folder)
    shutil.rmtree(folder / "2_Normalize")
    shutil.rmtree(folder / "3_MultiVectorMask")
    kinds = {"": "sentence_transformers.models.Transformer", "1_Dense": "pylate.models.Dense.Dense"}
    named = [{"type": k, "path": at, "name": str(n)} for n, (at, k) in enumerate(kinds.items())]
    write(folder / "modules.json", named)
    said = json.loads((folder / "1_Dense/config.json").read_text())
    write(folder / "1_Dense/config.json", {k: v for k, v in said.items() if "module" not in k})
    write(folder / "sentence_bert_config.json", {"max_seq_length": 60})
    write(folder / "config_sentence_transformers.json", {"model_type": "ColBERT", **settings})
    tokenizer = folder / "tokenizer_config.json"
    write(tokenizer, {**json.loads(tokenizer.read_text()), "mask_token": "</s>"})
    return folder


def write(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value), "utf-8")


@pytest.mark.parametrize(
    "settings",
    [
        {"query_prefix": "Q: ", "document_prefix": "D: ", "query_length": 20},
        {"document_length": 30, "skiplist_words": ["e"], "attend_to_expansion_tokens": True},
        {"do_query_expansion": False, "query_length": 12, "query_prefix": "Q"},
    ],
    ids=["prefixes", "attended", "unexpanded"],
)
def test_as_pylate_saves_it(settings: dict[str, Any], encoder: Path, tmp_path: Path) -> None:
    from sentence_transformers import MultiVectorEncoder

    folder = pylate(encoder, tmp_path / "model", **settings)
    built = lc.build(model=str(folder), output=tmp_path / "out", verify=False, check=False)
    check(built.path, MultiVectorEncoder(str(folder), device="cpu"))


@pytest.mark.parametrize("precision", ["int8", "auto"])
def test_rounded(precision: str, encoder: Path, tmp_path: Path) -> None:
    late(encoder, tmp_path / "model")
    found = verified(tmp_path / "model", precision, tmp_path / "out")
    assert found["embedding"] == TOKENS
    assert 0.995 <= found["cosine"] < 1


def test_what_a_loader_refuses(encoder: Path, tmp_path: Path) -> None:
    late(encoder, tmp_path / "model", query_expansion=FIXED)
    built = lc.build(model=str(tmp_path / "model"), output=tmp_path / "out", verify=False)
    with lc.load(built.path, threads=1) as model:
        with pytest.raises(LoaderError, match=r"no role 'passage', but \['document', 'query'\]"):
            model.vectors(TEXTS, "passage")
        for wrong in ("a text", [3], None):
            with pytest.raises(LoaderError, match="give a list of texts"):
                model.vectors(wrong)  # type: ignore[arg-type]
        with pytest.raises(LoaderError, match="it is empty"):
            model.vectors([])
    script = [sys.executable, str(built.path / "loader.py"), "--text", "hello", "--threads", "1"]
    made = subprocess.run(script, capture_output=True, text=True, check=True)
    assert np.array(json.loads(made.stdout)["vectors"]).shape[1] == WIDTH
    refused, _ = outcomes(built.path, imported(built.path / "loader.py"), ("embedding",))
    assert refused > 60


def test_queries_longer_than_the_engine_takes(encoder: Path, tmp_path: Path) -> None:
    late(encoder, tmp_path / "model", query_expansion=FIXED)
    built = lc.build(
        model=str(tmp_path / "model"),
        shapes={"sequence": [1, 12]},
        output=tmp_path / "out",
        verify=False,
    )
    with (
        lc.load(built.path, threads=1) as model,
        pytest.raises(LoaderError, match="queries are 16 tokens; 12 fit in"),
    ):
        model.vectors(TEXTS, "query")


def test_any_other_model_does_not_say_how_texts_are_read(encoder: Path, tmp_path: Path) -> None:
    assert not is_multi_vector_model(resolve(str(encoder), encoder))
    with pytest.raises(RecipeError, match="do not say how queries and documents are read"):
        lc.build(model=str(encoder), task="multi-vector-embedding", output=tmp_path / "out")


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("sentence_bert_config.json", {"query_expansion": {"strategy": "fixed"}}, "length"),
        ("sentence_bert_config.json", {"query_expansion": {**FIXED, "length": 0}}, "length 0"),
        ("sentence_bert_config.json", {"query_expansion": {**FIXED, "strategy": "x"}}, "'x'"),
        ("sentence_bert_config.json", {"query_expansion": 3}, "TypeError"),
        ("sentence_bert_config.json", {"query_expansion": {**FIXED, "token": None}}, "no mask"),
        ("sentence_bert_config.json", {"document_length": -1}, "-1 tokens"),
        ("config_sentence_transformers.json", {"prompts": [1]}, "TypeError"),
        ("3_MultiVectorMask/config.json", {"keep_only_token_ids": [4]}, "for images"),
        ("2_Normalize/config.json", {"module_input_name": "x"}, "module_input_name: x"),
        ("1_Dense/config.json", {"use_residual": True}, "use_residual: True"),
    ],
)
def test_settings_that_cannot_be_compiled(
    file: str, change: dict[str, Any], words: str, encoder: Path, tmp_path: Path
) -> None:
    late(encoder, tmp_path / "model", query_expansion=FIXED)
    said = json.loads((tmp_path / "model" / file).read_text())
    write(tmp_path / "model" / file, {**said, **change})
    with pytest.raises(SourceError) as caught:
        token_vectors(resolve(str(tmp_path / "model"), tmp_path))
    assert words in str(caught.value)


def test_modules_that_cannot_be_compiled(encoder: Path, tmp_path: Path) -> None:
    late(encoder, tmp_path / "model")
    file = tmp_path / "model/modules.json"
    pooled = {"type": "multi_vector_encoder.modules.HierarchicalTokenPooling", "path": "4_Pooling"}
    write(file, [*json.loads(file.read_text()), pooled])
    with pytest.raises(LeptonError, match="modules that cannot be compiled"):
        lc.build(model=str(tmp_path / "model"), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_roles_are_read(encoder: Path, tmp_path: Path) -> None:
    late(encoder, tmp_path / "model", query_expansion=FIXED, document_length=24)
    found = roles(resolve(str(tmp_path / "model"), tmp_path))
    assert found["query"].expansion == Expansion("</s>", 16, attend=False, fixed=True)
    assert (found["query"].prompt, found["query"].max_tokens) == ("Q ", 16)
    assert (found["document"].max_tokens, found["document"].expansion) == (24, None)
    assert found["document"].skipped == ("o", "no token")
